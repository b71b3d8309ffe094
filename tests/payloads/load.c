/* What scripts/bench-limits.sh limits: load KIND [NUMBER]. It runs until it is killed. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* Uses so many nanoseconds of processor time. */
static void burn(long ns) {
    long end = now(CLOCK_THREAD_CPUTIME_ID) + ns;
    while (now(CLOCK_THREAD_CPUTIME_ID) < end) {}
}

static void *spin(void *unused) {
    (void)unused;
    for (;;) burn(1000000000L);
    return NULL;
}

/* As make does: so many short children at a time, each waited for. */
static void storm(int parallel) {
    int running = 0;
    for (unsigned n = 0;; n++) {
        if (running == parallel) {
            wait(NULL);
            running--;
        }
        pid_t pid = fork();
        if (pid < 0) continue;
        if (pid == 0) {
            burn((5 + n % 45) * 1000000L);
            _exit(0);
        }
        running++;
    }
}

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* An http server whose every answer takes 2 ms of processor time. */
static int serve(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = local(port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return 1;
    for (;;) {
        char request[1024];
        static const char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
        int client = accept(listener, NULL, NULL);
        if (client < 0) continue;
        if (read(client, request, sizeof request) > 0) {
            burn(2000000);
            if (write(client, answer, sizeof answer - 1) < 0) perror("write");
        }
        close(client);
    }
}

static int by_size(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* Asks one thing after another and prints the median and the 99th percentile in milliseconds. */
static int ask(int port, int count) {
    long *times = calloc((size_t)count, sizeof *times);
    struct sockaddr_in address = local(port);
    int done = 0;
    for (int n = 0; n < count; n++) {
        char answer[256];
        long began = now(CLOCK_MONOTONIC);
        int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (!connect(server, (struct sockaddr *)&address, sizeof address) && write(server, "GET / HTTP/1.0\r\n\r\n", 18) == 18 &&
            read(server, answer, sizeof answer) > 0)
            times[done++] = now(CLOCK_MONOTONIC) - began;
        close(server);
    }
    if (!done) return 1;
    qsort(times, (size_t)done, sizeof *times, by_size);
    printf("%.1f %.1f\n", (double)times[done / 2] / 1e6, (double)times[done * 99 / 100] / 1e6);
    return 0;
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 1;
    if (!strcmp(kind, "rest"))
        for (;;) pause();
    if (!strcmp(kind, "serve")) return serve(number);
    if (!strcmp(kind, "ask")) return ask(number, argc > 3 ? atoi(argv[3]) : 1000);
    if (!strcmp(kind, "storm")) storm(number);
    if (!strcmp(kind, "burst"))
        for (;;) {
            burn(50000000);
            usleep(50000);
        }
    if (!strcmp(kind, "processes"))
        for (int n = 1; n < number; n++)
            if (fork() == 0) spin(NULL);
    if (!strcmp(kind, "threads"))
        for (int n = 1; n < number; n++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, spin, NULL)) return 1;
        }
    spin(NULL);
    return 0;
}
