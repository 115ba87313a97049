/* A CGI program: the request comes in the environment and on stdin, the answer
 * goes to stdout. Any web server of the last thirty years can run it. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : otherwise;
}

static void start(const char *status, const char *content_type) {
    printf("Status: %s\r\nContent-Type: %s\r\n\r\n", status, content_type);
    fflush(stdout);
}

static void greet(void) {
    start("200 OK", "text/plain; charset=utf-8");
    printf("%s, world, from C!\n", variable("GREETING", "Hello"));
}

/* Sends each piece of the body back as it arrives: the whole may be larger than
 * our memory. */
static void echo(void) {
    char buffer[64 * 1024];
    ssize_t length;

    start("200 OK", variable("CONTENT_TYPE", "application/octet-stream"));
    while ((length = read(STDIN_FILENO, buffer, sizeof buffer)) > 0) {
        fwrite(buffer, 1, (size_t)length, stdout);
        fflush(stdout);
    }
}

/* A line every 200 ms; each is on its way as soon as it is flushed. */
static void count(int last) {
    const struct timespec pause = {.tv_nsec = 200 * 1000 * 1000};

    start("200 OK", "text/plain; charset=utf-8");
    for (int number = 1; number <= last; number++) {
        printf("%d\n", number);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}

int main(void) {
    const char *method = variable("REQUEST_METHOD", "GET");
    const char *path = variable("PATH_INFO", "/");

    if (strcmp(method, "POST") == 0) {
        echo();
    } else if (strcmp(path, "/") == 0) {
        greet();
    } else if (strcmp(path, "/count") == 0) {
        count(5);
    } else {
        start("404 Not Found", "text/plain; charset=utf-8");
        printf("nothing at %s\n", path);
    }
    return EXIT_SUCCESS;
}
