/* Serves files that lie in its own memory: a WASI command that speaks CGI.

   `whit build` makes a function of a folder by putting the folder's files, and
   a table of them, behind this module's memory, and telling `files` where the
   table is. Nothing is copied for a request: the host maps the memory.

   No C library: what is used of WASI is declared here, and nothing allocates. */

typedef unsigned int u32;

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct span {
  const char *start;
  u32 length;
};

WASI(environ_sizes_get) u32 environ_sizes_get(u32 *count, u32 *bytes);
WASI(environ_get) u32 environ_get(char **variables, char *buffer);
WASI(fd_write) u32 fd_write(u32 descriptor, const struct span *spans, u32 count, u32 *written);

/* One file. Its path begins with a slash; its etag has its quotes. */
struct file {
  struct span path, type, etag, content;
};

/* Found by its first word, filled in by `whit build`. Sorted by path. */
volatile struct {
  char mark[16];
  const struct file *first;
  u32 count;
} files = {"whit:file-table", 0, 0};

/* The host bounds a request's head to less than half of this. */
static char environment[128 << 10];
static char *variables[1024];
static u32 variable_count;

/* --- text --- */

static u32 length_of(const char *text) {
  u32 length = 0;
  while (text[length]) length++;
  return length;
}

static struct span text(const char *start) {
  return (struct span){start, length_of(start)};
}

static int compare(struct span a, struct span b) {
  for (u32 at = 0; at < a.length && at < b.length; at++)
    if (a.start[at] != b.start[at])
      return (unsigned char)a.start[at] < (unsigned char)b.start[at] ? -1 : 1;
  return a.length < b.length ? -1 : a.length > b.length;
}

static int starts_with(struct span whole, struct span start) {
  return whole.length >= start.length && compare((struct span){whole.start, start.length}, start) == 0;
}

/* The value of a variable; empty where there is none. */
static struct span variable(const char *name) {
  struct span wanted = text(name);
  for (u32 at = 0; at < variable_count; at++) {
    struct span entry = text(variables[at]);
    if (starts_with(entry, wanted) && entry.start[wanted.length] == '=')
      return (struct span){entry.start + wanted.length + 1, entry.length - wanted.length - 1};
  }
  return (struct span){"", 0};
}

/* --- the answer --- */

static void put(struct span piece) {
  while (piece.length) {
    u32 written = 0;
    /* Nobody is left to tell that nobody listens. */
    if (fd_write(1, &piece, 1, &written)) return;
    piece.start += written;
    piece.length -= written;
  }
}

static char head[16 << 10];
static u32 head_length;

static void add(struct span piece) {
  for (u32 at = 0; at < piece.length && head_length < sizeof head; at++)
    head[head_length++] = piece.start[at];
}

static void add_text(const char *piece) { add(text(piece)); }

static void add_number(u32 number) {
  char digits[10];
  u32 at = sizeof digits;
  do digits[--at] = '0' + number % 10;
  while (number /= 10);
  add((struct span){digits + at, sizeof digits - at});
}

/* A path as it stands in a URL. */
static void add_encoded(struct span path) {
  for (u32 at = 0; at < path.length; at++) {
    unsigned char byte = path.start[at];
    int plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                (byte >= '0' && byte <= '9') || byte == '/' || byte == '-' || byte == '.' ||
                byte == '_' || byte == '~';
    if (plain) {
      add((struct span){path.start + at, 1});
    } else {
      const char *hex = "0123456789ABCDEF";
      char encoded[3] = {'%', hex[byte >> 4], hex[byte & 15]};
      add((struct span){encoded, 3});
    }
  }
}

static void finish_head(void) {
  add_text("\n");
  put((struct span){head, head_length});
}

static void plain(const char *status, const char *fields, const char *message, int has_body) {
  add_text("Status: ");
  add_text(status);
  add_text("\nContent-Type: text/plain; charset=utf-8\n");
  add_text(fields);
  finish_head();
  if (has_body) put(text(message));
}

/* --- finding a file --- */

static const struct file *find(struct span path) {
  u32 low = 0, high = files.count;
  while (low < high) {
    u32 middle = low + (high - low) / 2;
    int order = compare(files.first[middle].path, path);
    if (order == 0) return &files.first[middle];
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return 0;
}

static char joined[8 << 10];

static const struct file *find_joined(struct span path, const char *end) {
  struct span after = text(end);
  if (path.length + after.length > sizeof joined) return 0;
  for (u32 at = 0; at < path.length; at++) joined[at] = path.start[at];
  for (u32 at = 0; at < after.length; at++) joined[path.length + at] = after.start[at];
  return find((struct span){joined, path.length + after.length});
}

/* --- conditions and ranges --- */

/* Whether a list of etags has this one. A weak one counts: for If-None-Match
   only the content matters. */
static int lists(struct span list, struct span etag) {
  if (list.length == 1 && list.start[0] == '*') return 1;
  for (u32 at = 0; at + etag.length <= list.length; at++)
    if (compare((struct span){list.start + at, etag.length}, etag) == 0) return 1;
  return 0;
}

/* Reads digits; what is too large for a file is as large as can be. Moves
   `at`, and says whether there were any. */
static int number(struct span from, u32 *at, u32 *value) {
  u32 start = *at;
  *value = 0;
  for (; *at < from.length && from.start[*at] >= '0' && from.start[*at] <= '9'; (*at)++) {
    u32 digit = from.start[*at] - '0';
    *value = *value > (0xffffffffu - digit) / 10 ? 0xffffffffu : *value * 10 + digit;
  }
  return *at > start;
}

enum range { WHOLE, PART, UNSATISFIABLE };

/* One range of bytes. Several, other units and what can not be read are
   answered with the whole file, as RFC 9110 allows. */
static enum range range(struct span field, u32 size, u32 *first, u32 *last) {
  struct span unit = text("bytes=");
  if (!starts_with(field, unit)) return WHOLE;
  u32 at = unit.length, from, to;
  int has_from = number(field, &at, &from);
  if (at >= field.length || field.start[at++] != '-') return WHOLE;
  int has_to = number(field, &at, &to);
  if (at != field.length || (!has_from && !has_to)) return WHOLE;
  if (!has_from) {
    /* The last `to` bytes. */
    if (to == 0 || size == 0) return UNSATISFIABLE;
    *first = to >= size ? 0 : size - to;
    *last = size - 1;
    return PART;
  }
  if (has_to && to < from) return WHOLE;
  if (from >= size) return UNSATISFIABLE;
  *first = from;
  *last = has_to && to < size ? to : size - 1;
  return PART;
}

/* --- a request --- */

static void serve(const struct file *file, int has_body, int found) {
  u32 size = file->content.length, first = 0, last = size ? size - 1 : 0;
  enum range wanted = WHOLE;
  int unchanged = 0;
  if (found) {
    struct span known = variable("HTTP_IF_NONE_MATCH"), condition = variable("HTTP_IF_RANGE");
    unchanged = known.length && lists(known, file->etag);
    /* A range of what the client has an older version of is of no use to it. */
    if (has_body && (!condition.length || compare(condition, file->etag) == 0))
      wanted = range(variable("HTTP_RANGE"), size, &first, &last);
  }
  if (unchanged) add_text("Status: 304 Not Modified\n");
  else if (!found) add_text("Status: 404 Not Found\n");
  else if (wanted == PART) add_text("Status: 206 Partial Content\n");
  else if (wanted == UNSATISFIABLE) add_text("Status: 416 Range Not Satisfiable\n");
  add_text("Content-Type: ");
  add(file->type);
  if (found) {
    add_text("\nETag: ");
    add(file->etag);
    add_text("\nAccept-Ranges: bytes");
    /* Kept by caches, and asked about before each use: a deploy shows at once. */
    add_text("\nCache-Control: public, max-age=0, must-revalidate");
  }
  add_text("\n");
  struct span body = file->content;
  if (!unchanged && wanted == UNSATISFIABLE) {
    add_text("Content-Range: bytes */");
    add_number(size);
    add_text("\n");
    body.length = 0;
  } else if (!unchanged && wanted == PART) {
    add_text("Content-Range: bytes ");
    add_number(first);
    add_text("-");
    add_number(last);
    add_text("/");
    add_number(size);
    add_text("\n");
    body.start += first;
    body.length = last - first + 1;
  }
  if (!unchanged) {
    add_text("Content-Length: ");
    add_number(body.length);
    add_text("\n");
  }
  finish_head();
  if (has_body && !unchanged) put(body);
}

/* A folder without its slash: relative links in its index would be wrong. */
static void redirect(struct span path) {
  struct span query = variable("QUERY_STRING");
  add_text("Status: 308 Permanent Redirect\nLocation: ");
  add_encoded(variable("SCRIPT_NAME"));
  add_encoded(path);
  add_text("/");
  if (query.length) {
    add_text("?");
    add(query);
  }
  add_text("\n");
  finish_head();
}

__attribute__((export_name("_start"))) void start(void) {
  u32 bytes = 0;
  if (environ_sizes_get(&variable_count, &bytes) || bytes > sizeof environment ||
      variable_count > sizeof variables / sizeof *variables ||
      environ_get(variables, environment)) {
    variable_count = 0;
    plain("500 Internal Server Error", "", "the request's variables can not be read\n", 1);
    return;
  }
  struct span method = variable("REQUEST_METHOD"), path = variable("PATH_INFO");
  int has_body = compare(method, text("GET")) == 0;
  if (!has_body && compare(method, text("HEAD")) != 0) {
    plain("405 Method Not Allowed", "Allow: GET, HEAD\n", "only GET and HEAD are allowed here\n", 1);
    return;
  }
  if (!path.length) path = text("/");
  int is_folder = path.start[path.length - 1] == '/';
  const struct file *file = is_folder ? find_joined(path, "index.html") : find(path);
  if (file) {
    serve(file, has_body, 1);
  } else if (!is_folder && find_joined(path, "/index.html")) {
    redirect(path);
  } else if ((file = find(text("/404.html")))) {
    serve(file, has_body, 0);
  } else {
    plain("404 Not Found", "", "there is no such file\n", has_body);
  }
}
