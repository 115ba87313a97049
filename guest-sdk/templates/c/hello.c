#include <stdio.h>
#include <stdlib.h>

/* A CGI program: the request is in the environment and on standard input, the
   response goes to standard output, headers first. */
int main(void) {
  const char *path = getenv("PATH_INFO"); /* "/Ada" */
  const char *name = path && path[0] && path[1] ? path + 1 : "world";

  puts("Content-Type: text/plain; charset=utf-8\n");
  printf("Hello, %s, from C!\n", name);
}
