/* How often each word occurs: a plain Unix filter, and a function.

     $ ./words < text           the words of standard input, most frequent first
     $ curl URL --data-binary @text

   The two differ in the CGI header only, which is printed where there is a
   REQUEST_METHOD. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES_MAX = 64, SLOTS_FIRST = 1024 };

struct entry {
  char *word;
  unsigned long count;
};

/* A hash table with open addressing; its size is a power of two. */
static struct entry *table;
static size_t slots, used;

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (!memory) {
    fputs("words: out of memory\n", stderr);
    exit(1);
  }
  return memory;
}

static struct entry *find(struct entry *in, size_t size, const char *word) {
  size_t hash = 1469598103u;
  for (const char *at = word; *at; at++) hash = (hash ^ (unsigned char)*at) * 16777619u;
  size_t slot = hash & (size - 1);
  while (in[slot].word && strcmp(in[slot].word, word)) slot = (slot + 1) & (size - 1);
  return &in[slot];
}

static void grow(void) {
  size_t larger = slots ? slots * 2 : SLOTS_FIRST;
  struct entry *next = allocate(larger, sizeof *next);
  for (size_t at = 0; at < slots; at++)
    if (table[at].word) *find(next, larger, table[at].word) = table[at];
  free(table);
  table = next;
  slots = larger;
}

static void count(const char *word) {
  if (used * 2 >= slots) grow();
  struct entry *entry = find(table, slots, word);
  if (!entry->word) {
    entry->word = allocate(strlen(word) + 1, 1);
    strcpy(entry->word, word);
    used++;
  }
  entry->count++;
}

static int by_count(const void *left, const void *right) {
  const struct entry *a = left, *b = right;
  if (a->count != b->count) return a->count < b->count ? 1 : -1;
  if (!a->word || !b->word) return !a->word - !b->word;
  return strcmp(a->word, b->word);
}

int main(void) {
  if (getenv("REQUEST_METHOD")) puts("Content-Type: text/plain; charset=utf-8\n");

  char word[WORD_BYTES_MAX + 1];
  size_t length = 0;
  int byte;
  do {
    byte = getchar();
    /* Bytes beyond ASCII are parts of letters in UTF-8. */
    int is_part = byte != EOF && (isalnum(byte) || byte == '\'' || byte >= 0x80);
    if (is_part && length < WORD_BYTES_MAX) word[length++] = (char)tolower(byte);
    if (!is_part && length) {
      word[length] = 0;
      count(word);
      length = 0;
    }
  } while (byte != EOF);

  qsort(table, slots, sizeof *table, by_count);
  for (size_t at = 0; at < used; at++) printf("%7lu %s\n", table[at].count, table[at].word);
  return 0;
}
