/* Markdown to HTML, for the parts that notes are made of: headings, paragraphs,
   lists, quotes, code, emphasis, links. Whatever is in the text is escaped: no
   HTML of the author's comes out, and links lead to http, https and mailto. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES_MAX = 16384 };

static void put_escaped(char character) {
  switch (character) {
  case '&': fputs("&amp;", stdout); break;
  case '<': fputs("&lt;", stdout); break;
  case '>': fputs("&gt;", stdout); break;
  case '"': fputs("&quot;", stdout); break;
  default: putchar(character);
  }
}

static void put_text(const char *start, const char *end) {
  while (start < end) put_escaped(*start++);
}

static int is_safe_link(const char *url, const char *end) {
  const char *schemes[] = {"http://", "https://", "mailto:", "/", "#"};
  for (size_t at = 0; at < sizeof schemes / sizeof *schemes; at++) {
    size_t length = strlen(schemes[at]);
    if ((size_t)(end - url) >= length && !strncmp(url, schemes[at], length)) return 1;
  }
  return 0;
}

static const char *find(const char *start, const char *end, const char *what) {
  size_t length = strlen(what);
  for (; start + length <= end; start++)
    if (!memcmp(start, what, length)) return start;
  return NULL;
}

/* A span between two marks; returns where it ends, or NULL if it is none. */
static const char *marked(const char *at, const char *end, const char *mark, const char *tag);

static void put_inline(const char *at, const char *end) {
  while (at < end) {
    const char *next = NULL;
    if (*at == '\\' && at + 1 < end && ispunct((unsigned char)at[1])) {
      put_escaped(at[1]);
      next = at + 2;
    } else if (*at == '`') {
      const char *close = find(at + 1, end, "`");
      if (close) {
        fputs("<code>", stdout);
        put_text(at + 1, close);
        fputs("</code>", stdout);
        next = close + 1;
      }
    } else if (*at == '[') {
      const char *middle = find(at, end, "](");
      const char *close = middle ? find(middle, end, ")") : NULL;
      if (close && is_safe_link(middle + 2, close)) {
        fputs("<a href=\"", stdout);
        put_text(middle + 2, close);
        fputs("\">", stdout);
        put_inline(at + 1, middle);
        fputs("</a>", stdout);
        next = close + 1;
      }
    } else if (*at == '*') {
      next = marked(at, end, "**", "strong");
      if (!next) next = marked(at, end, "*", "em");
    }
    if (!next) {
      put_escaped(*at);
      next = at + 1;
    }
    at = next;
  }
}

static const char *marked(const char *at, const char *end, const char *mark, const char *tag) {
  size_t length = strlen(mark);
  if ((size_t)(end - at) < 2 * length + 1 || memcmp(at, mark, length)) return NULL;
  const char *close = find(at + length + 1, end, mark);
  if (!close || isspace((unsigned char)at[length])) return NULL;
  printf("<%s>", tag);
  put_inline(at + length, close);
  printf("</%s>", tag);
  return close + length;
}

/* The block that is open: its tag, or NULL. */
static const char *open_block;

static void open(const char *tag) {
  if (open_block && !strcmp(open_block, tag)) {
    if (!strcmp(tag, "p") || !strcmp(tag, "blockquote")) putchar('\n');
    return;
  }
  if (open_block) printf("</%s>\n", open_block);
  open_block = tag;
  if (!tag) return;
  printf("<%s>", tag);
  if (!strcmp(tag, "ul") || !strcmp(tag, "ol")) putchar('\n');
}

static void close_block(void) {
  if (open_block) printf("</%s>\n", open_block);
  open_block = NULL;
}

static void put_line(const char *line, const char *end) {
  while (end > line && isspace((unsigned char)end[-1])) end--;
  while (line < end && *line == ' ') line++;
  size_t level = strspn(line, "#"), digits = strspn(line, "0123456789");
  if (line == end) {
    close_block();
  } else if (level >= 1 && level <= 6 && line[level] == ' ') {
    close_block();
    printf("<h%zu>", level);
    put_inline(line + level + 1, end);
    printf("</h%zu>\n", level);
  } else if ((*line == '-' || *line == '*') && line[1] == ' ') {
    open("ul");
    fputs("<li>", stdout);
    put_inline(line + 2, end);
    fputs("</li>\n", stdout);
  } else if (digits && line[digits] == '.' && line[digits + 1] == ' ') {
    open("ol");
    fputs("<li>", stdout);
    put_inline(line + digits + 2, end);
    fputs("</li>\n", stdout);
  } else if (*line == '>') {
    open("blockquote");
    line += line[1] == ' ' ? 2 : 1;
    if (line < end) put_inline(line, end);
  } else {
    open("p");
    put_inline(line, end);
  }
}

int main(void) {
  const char *method = getenv("REQUEST_METHOD");
  if (method && strcmp(method, "POST")) {
    puts("Status: 405 Method Not Allowed\nAllow: POST\nContent-Type: text/plain\n");
    puts("post a text");
    return 0;
  }
  if (method) puts("Content-Type: text/html; charset=utf-8\n");
  static char line[LINE_BYTES_MAX];
  int in_code = 0;
  while (fgets(line, sizeof line, stdin)) {
    if (!strncmp(line, "```", 3)) {
      close_block();
      fputs(in_code ? "</code></pre>\n" : "<pre><code>", stdout);
      in_code = !in_code;
    } else if (in_code) {
      put_text(line, line + strlen(line));
    } else {
      put_line(line, line + strlen(line));
    }
  }
  if (in_code) fputs("</code></pre>\n", stdout);
  close_block();
  return 0;
}
