/*
 * Uses memory in every way that a payload can: `eat HOW COUNT MIB [PATH]`. COUNT processes fill MIB each, as fast as
 * they can, and wait to be killed; `full` is printed when all that was asked for is there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1 << 20)

static char block[MIB];

static int fail(const char *what)
{
    printf("%s %s\n", what, strerrorname_np(errno));
    fflush(stdout);
    return 1;
}

static int fill(int flags, int fd, size_t mib)
{
    char *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED)
        return fail("mmap");
    memset(memory, 1, mib * MIB);
    return 0;
}

static int write_all(int fd, size_t mib)
{
    for (size_t i = 0; i < mib; i++)
        if (write(fd, block, MIB) != MIB)
            return fail("write");
    return 0;
}

static int eat(const char *how, size_t mib, const char *path)
{
    if (!strcmp(how, "anon"))
        return fill(MAP_PRIVATE | MAP_ANONYMOUS, -1, mib);
    if (!strcmp(how, "shared"))
        return fill(MAP_SHARED | MAP_ANONYMOUS, -1, mib);
    if (!strcmp(how, "memfd"))
        return write_all(memfd_create("x", 0), mib);
    if (!strcmp(how, "file"))
        return write_all(open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600), mib);
    if (!strcmp(how, "sysv")) {
        char *memory = shmat(shmget(IPC_PRIVATE, mib * MIB, IPC_CREAT | 0600), NULL, 0);
        if (memory == (void *)-1)
            return fail("shmat");
        memset(memory, 1, mib * MIB);
        return shmdt(memory);
    }
    return 2;
}

/* One parent's memory in COUNT children that only read it: there once. */
static int sharing(size_t count, size_t mib)
{
    if (fill(MAP_PRIVATE | MAP_ANONYMOUS, -1, mib))
        return 1;
    for (size_t i = 0; i < count; i++)
        if (fork() == 0)
            for (;;)
                pause();
    puts("full");
    fflush(stdout);
    for (;;)
        pause();
}

/* COUNT processes fill MIB each as fast as they can, and note how far they are in a file on disk, page by page: what
 * they had when they were stopped stays there. */
#define PAGE 4096
#define SLOTS 64

static volatile long *slots(const char *path)
{
    int fd = open(path, O_RDWR);
    void *memory = mmap(NULL, SLOTS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void flood_one(const char *how, size_t mib, volatile long *slot)
{
    size_t all = mib * MIB;
    int fd = -1, flags = MAP_SHARED | MAP_ANONYMOUS;
    if (!strcmp(how, "anon"))
        flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (!strcmp(how, "memfd"))
        fd = memfd_create("x", 0);
    if (!strcmp(how, "file"))
        fd = open("/t", O_TMPFILE | O_RDWR, 0600);
    if (fd >= 0) {
        for (size_t at = 0; at < all && write(fd, block, 16 * PAGE) == 16 * PAGE; at += 16 * PAGE)
            *slot += 16 * PAGE;
        return;
    }
    char *memory = mmap(NULL, all, PROT_READ | PROT_WRITE, flags, -1, 0);
    for (size_t at = 0; memory != MAP_FAILED && at < all; at += PAGE) {
        memory[at] = 1;
        *slot += PAGE;
    }
}

static int flood(const char *how, size_t count, size_t mib, const char *path)
{
    volatile long *all = slots(path);
    if (!all || count > SLOTS)
        return 2;
    for (size_t i = 0; i < count; i++)
        if (count == 1 || fork() == 0) {
            flood_one(how, mib, all + i * PAGE / sizeof *all);
            for (;;)
                pause();
        }
    for (;;)
        pause();
}

/* Prints how many MiB were filled. */
static int told(const char *path)
{
    volatile long *all = slots(path);
    long sum = 0;
    for (size_t i = 0; all && i < SLOTS; i++)
        sum += all[i * PAGE / sizeof *all];
    printf("%ld\n", sum / MIB);
    return all ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    size_t count = strtoul(argv[2], NULL, 10), mib = strtoul(argv[3], NULL, 10);
    const char *path = argc > 4 ? argv[4] : "";
    if (!strncmp(argv[1], "flood-", 6))
        return flood(argv[1] + 6, count, mib, path);
    if (!strcmp(argv[1], "told"))
        return told(path);
    if (!strcmp(argv[1], "sharing"))
        return sharing(count, mib);
    int full[2], bad = 0;
    if (pipe(full))
        return 2;
    puts("ready");
    fflush(stdout);
    if (count <= 1)
        bad = eat(argv[1], mib, path);
    for (size_t i = 0; count > 1 && i < count; i++)
        if (fork() == 0) {
            char done = (char)eat(argv[1], mib, path);
            if (write(full[1], &done, 1) != 1)
                return 2;
            for (;;)
                pause();
        }
    close(full[1]);
    char done;
    for (size_t i = 0; count > 1 && i < count && read(full[0], &done, 1) == 1; i++)
        bad |= done;
    if (bad)
        return 3;
    puts("full");
    fflush(stdout);
    for (;;)
        pause();
}
