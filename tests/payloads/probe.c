/*
 * What the tests run inside containers: one static program, one sub-command a question. Each prints what the kernel
 * answered (`ok` or the name of the errno) and leaves judging to the test.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int say(const char *name, long result)
{
    printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
    return 0;
}

/* Asks the supervisor behind this socket for SIGKILL, as a command would. */
static int ask_control(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned char request[] = {1, 0, 18}, reply[64];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        return say("connect", -1);
    send(fd, request, sizeof request, MSG_NOSIGNAL);
    puts(recv(fd, reply, sizeof reply, 0) > 0 ? "answered" : "refused");
    return 0;
}

static int ready(void)
{
    puts("ready");
    fflush(stdout);
    return 0;
}

/* The generator is in the harness too (stream.rs): both sides know every byte. */
static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int emit(int fd, uint64_t seed, uint64_t bytes)
{
    static uint64_t block[8192];
    while (bytes > 0) {
        size_t size = bytes < sizeof block ? bytes : sizeof block, done = 0;
        for (size_t i = 0; i < sizeof block / 8; i++)
            block[i] = next(&seed);
        while (done < size) {
            ssize_t n = write(fd, (char *)block + done, size - done);
            if (n < 0) {
                fprintf(stderr, "write: %s\n", strerrorname_np(errno));
                return 1;
            }
            done += (size_t)n;
        }
        bytes -= size;
    }
    return 0;
}

/* Two streams at once: a child writes standard error while this process writes standard output. */
static int emit_both(uint64_t bytes)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(emit(2, 2, bytes));
    int failed = emit(1, 1, bytes);
    waitpid(child, &status, 0);
    return failed || status != 0;
}

static int digest_stdin(void)
{
    static unsigned char block[65536];
    uint64_t total = 0, hash = 1469598103934665603ULL;
    ssize_t n;
    while ((n = read(0, block, sizeof block)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            hash = (hash ^ block[i]) * 1099511628211ULL;
        total += (uint64_t)n;
    }
    printf("%llu %016llx\n", (unsigned long long)total, (unsigned long long)hash);
    return n < 0;
}

static volatile sig_atomic_t caught;
static void on_signal(int number) { caught = number; }

static int trap(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t all, old;
    for (int number = 1; number < 32; number++)
        sigaction(number, &action, NULL);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    ready();
    while (!caught)
        sigsuspend(&old);
    printf("got %d\n", (int)caught);
    return 0;
}

_Noreturn static int wait_forever(void)
{
    ready();
    for (;;)
        pause();
}

static int ignore_signals(void)
{
    for (int number = 1; number < 32; number++)
        signal(number, SIG_IGN);
    return wait_forever();
}

/* Processes that have left everything a parent could hold on to: session, group, terminal, parent. */
static int scatter(int count)
{
    for (int i = 0; i < count; i++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                for (int fd = 0; fd < 64; fd++)
                    close(fd);
                for (;;)
                    pause();
            }
            _exit(0);
        }
        wait(NULL);
    }
    return 0;
}

static int make_orphans(int count)
{
    for (int i = 0; i < count; i++) {
        if (fork() == 0) {
            if (fork() == 0)
                _exit(0);
            _exit(0);
        }
        wait(NULL);
    }
    return 0;
}

static int zombies_now(void)
{
    int count = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc && (entry = readdir(proc))) {
        char path[300], line[512], *end;
        FILE *stat;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (!(stat = fopen(path, "re")))
            continue;
        if (fgets(line, sizeof line, stat) && (end = strrchr(line, ')')) && end[2] == 'Z')
            count++;
        fclose(stat);
    }
    if (proc)
        closedir(proc);
    return count;
}

/* Reaping is the work of another process: give it two seconds. */
static int count_zombies(void)
{
    int count, tries = 200;
    while ((count = zombies_now()) > 0 && tries-- > 0)
        poll(NULL, 0, 10);
    printf("%d\n", count);
    return 0;
}

static void print_window(void)
{
    struct winsize size;
    if (ioctl(0, TIOCGWINSZ, &size) < 0)
        printf("window %s\n", strerrorname_np(errno));
    else
        printf("window %d %d\n", size.ws_row, size.ws_col);
    fflush(stdout);
}

_Noreturn static int window(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGWINCH);
    sigprocmask(SIG_BLOCK, &block, &old);
    sigaction(SIGWINCH, &action, NULL);
    print_window();
    for (;;) {
        while (!caught)
            sigsuspend(&old);
        caught = 0;
        print_window();
    }
}

/* Writes to a file that is held open for reading, as CVE-2019-5736 was exploited. */
static long overwrite_held(int held)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", held);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0)
        return -1;
    long n = write(fd, "#!/bin/sh\necho owned\n", 21);
    close(fd);
    return n;
}

static long overwrite(const char *exe)
{
    int held = open(exe, O_RDONLY | O_CLOEXEC);
    return held < 0 ? -1 : overwrite_held(held);
}

static int same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/*
 * Until SIGTERM: holds the program of every process that is not the image's own, and writes to it as long as it runs and
 * once it has ended. Prints how many there were, and each distinct answer.
 */
static int hunt(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct stat self, shell, found;
    long answers[256] = { 0 }, foreign = 0;
    sigaction(SIGTERM, &action, NULL);
    stat("/proc/self/exe", &self);
    stat("/bin/busybox", &shell);
    ready();
    while (!caught) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc))) {
            char exe[300];
            pid_t pid = atoi(entry->d_name);
            snprintf(exe, sizeof exe, "/proc/%s/exe", entry->d_name);
            int held = pid > 0 ? open(exe, O_RDONLY | O_CLOEXEC) : -1;
            if (held < 0)
                continue;
            if (fstat(held, &found) == 0 && !same_file(&found, &self) && !same_file(&found, &shell)) {
                int runs;
                foreign++;
                do {
                    runs = kill(pid, 0) == 0;
                    answers[overwrite_held(held) < 0 ? (unsigned)errno % 256 : 0]++;
                } while (runs && !caught);
            }
            close(held);
        }
        closedir(proc);
    }
    printf("foreign %ld\n", foreign);
    for (int i = 0; i < 256; i++)
        if (answers[i])
            printf("overwrite %s\n", i ? strerrorname_np(i) : "ok");
    return 0;
}

static int keyrings(void)
{
    say("add_key", syscall(SYS_add_key, "user", "rlrun-probe", "x", 1, KEY_SPEC_SESSION_KEYRING));
    say("keyctl", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
    say("request_key", syscall(SYS_request_key, "user", "rlrun-probe", NULL, KEY_SPEC_SESSION_KEYRING));
    say("search", syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "rlrun-caller", 0));
    return 0;
}

/* Runs a program that has a key, as a caller would after logging in somewhere. */
static int with_key(char **program)
{
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ||
        syscall(SYS_add_key, "user", "rlrun-caller", "x", 1, KEY_SPEC_SESSION_KEYRING) < 0)
        return say("with-key", -1);
    execv(program[0], program);
    return say(program[0], -1);
}

/* Calls that no ordinary program makes: each must fail whatever its arguments. */
static int denied_calls(void)
{
    say("bpf", syscall(SYS_bpf, 0, NULL, 0));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
    say("userfaultfd", syscall(SYS_userfaultfd, 0));
    say("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    say("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("init_module", syscall(SYS_init_module, NULL, 0, ""));
    say("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, NULL, 0));
    say("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    say("swapon", syscall(SYS_swapon, "/none", 0));
    say("settimeofday", syscall(SYS_settimeofday, &(struct timespec){ 0 }, NULL));
    say("unshare-user", unshare(CLONE_NEWUSER));
    say("unshare-mount", unshare(CLONE_NEWNS));
    say("setns", syscall(SYS_setns, -1, 0));
    say("mount", mount("none", "/tmp", "tmpfs", 0, NULL));
    say("tiocsti", ioctl(0, TIOCSTI, "x"));
    errno = 0;
    say("clone3-user", syscall(SYS_clone3, &(uint64_t[11]){ CLONE_NEWUSER }, 88));
    return 0;
}

static int try_mounts(const char *path)
{
    say("umount", umount2(path, MNT_DETACH));
    say("mount-tmpfs", mount("none", path, "tmpfs", 0, NULL));
    say("remount-rw", mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL));
    say("bind-over", mount("/tmp", path, NULL, MS_BIND, NULL));
    say("pivot_root", syscall(SYS_pivot_root, ".", "."));
    return 0;
}

static int touch_process(pid_t pid)
{
    char path[64];
    say("kill", kill(pid, 0));
    say("ptrace", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    say("mem", open(path, O_RDWR | O_CLOEXEC));
    snprintf(path, sizeof path, "/proc/%d/root/etc/passwd", pid);
    say("root", open(path, O_RDONLY | O_CLOEXEC));
    say("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
    return 0;
}

static int open_file(const char *path, const char *how)
{
    int flags = strcmp(how, "w") == 0 ? O_WRONLY : strcmp(how, "rw") == 0 ? O_RDWR : O_RDONLY;
    return say(path, open(path, flags | O_CLOEXEC));
}

static struct sockaddr_in address_of(const char *ip, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

static int try_connect(const char *ip, int port)
{
    struct sockaddr_in address = address_of(ip, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
    socklen_t size = sizeof error;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        return say("connect", -1);
    struct pollfd wait = { .fd = fd, .events = POLLOUT };
    if (poll(&wait, 1, 2000) == 0)
        error = ETIMEDOUT;
    else
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    return say("connect", error ? -1 : 0);
}

/* Answers one client with the address it came from. */
static int serve_tcp(int port)
{
    struct sockaddr_in address = address_of("0.0.0.0", port), peer;
    socklen_t size = sizeof peer;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 8) < 0)
        return say("listen", -1);
    ready();
    for (;;) {
        size = sizeof peer;
        int client = accept(fd, (struct sockaddr *)&peer, &size);
        char text[32];
        if (client < 0)
            return say("accept", -1);
        inet_ntop(AF_INET, &peer.sin_addr, text, sizeof text);
        dprintf(client, "hello %s\n", text);
        close(client);
    }
}

/* A datagram to a place that ought not to get it. */
static int send_udp(const char *ip, int port)
{
    struct sockaddr_in to = address_of(ip, port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return say("send", sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to));
}

static int serve_udp(int port)
{
    struct sockaddr_in address = address_of("0.0.0.0", port), peer;
    char data[2048];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return say("bind", -1);
    ready();
    for (;;) {
        socklen_t size = sizeof peer;
        ssize_t n = recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&peer, &size);
        if (n < 0)
            return say("recvfrom", -1);
        sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&peer, size);
    }
}

static int identity(void)
{
    gid_t groups[64];
    int count = getgroups(64, groups);
    printf("uid %u %u\ngid %u %u\ngroups", getuid(), geteuid(), getgid(), getegid());
    for (int i = 0; i < count; i++)
        printf(" %u", groups[i]);
    printf("\n");
    return 0;
}

static void *sleep_forever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Starts processes until the kernel refuses: how many there are, and how it refused. As another user, if one is given. */
static int start_many(int wanted, uid_t uid, int threads)
{
    int count = 0, error = 0;
    for (; count < wanted && !error; count += !error) {
        pthread_t thread;
        pid_t pid;
        if (threads) {
            error = pthread_create(&thread, NULL, sleep_forever, NULL);
            continue;
        }
        if ((pid = fork()) < 0) {
            error = errno;
        } else if (pid == 0) {
            if (uid && count % 2)
                setuid(uid);
            for (;;)
                pause();
        }
    }
    printf("%d %s\n", count, error ? strerrorname_np(error) : "ok");
    fflush(stdout);
    return 0;
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void burn_until(clockid_t clock, double end)
{
    while (seconds(clock) < end)
        ;
}

/* What this process and its children that it has waited for have used, by the kernel. */
static double used_so_far(void)
{
    double all = 0;
    struct rusage usage;
    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
        getrusage(who, &usage);
        all += (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }
    return all;
}

/* So many processes that never rest. */
static int burn(int count, double duration)
{
    double end = seconds(CLOCK_MONOTONIC) + duration;
    for (int i = 1; i < count; i++)
        if (fork() == 0) {
            burn_until(CLOCK_MONOTONIC, end);
            _exit(0);
        }
    burn_until(CLOCK_MONOTONIC, end);
    while (wait(NULL) > 0)
        ;
    printf("used %.3f\n", used_so_far());
    return 0;
}

/* Children that use a few milliseconds each and are waited for, as make(1) does. */
static int storm(int count, double duration)
{
    double end = seconds(CLOCK_MONOTONIC) + duration;
    for (int living = 0; seconds(CLOCK_MONOTONIC) < end; living++) {
        if (living >= count && wait(NULL) > 0)
            living--;
        if (fork() == 0) {
            burn_until(CLOCK_PROCESS_CPUTIME_ID, seconds(CLOCK_PROCESS_CPUTIME_ID) + 0.007);
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        ;
    printf("used %.3f\n", used_so_far());
    return 0;
}

/* Waits as a shell with job control does, for a busy child in a process group of its own. */
static int watch(double duration)
{
    double end = seconds(CLOCK_MONOTONIC) + duration;
    int status, stopped = 0;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        burn_until(CLOCK_MONOTONIC, end);
        _exit(0);
    }
    setpgid(child, child);
    while (waitpid(child, &status, WUNTRACED | WCONTINUED) == child && !WIFEXITED(status))
        stopped += WIFSTOPPED(status);
    printf("stopped %d\n", stopped);
    return 0;
}

/* A child that stopped itself, beside one that makes the container run into its limit. */
static int stays_stopped(double duration)
{
    char path[64], line[512] = "", *end;
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    waitpid(child, NULL, WUNTRACED);
    burn_until(CLOCK_MONOTONIC, seconds(CLOCK_MONOTONIC) + duration);
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    FILE *stat = fopen(path, "re");
    if (stat && fgets(line, sizeof line, stat) && (end = strrchr(line, ')')))
        printf("state %c\n", end[2]);
    kill(child, SIGKILL);
    return 0;
}

/* Traces a child, as a debugger does one that it has let go on, beside one that makes the container run into its limit,
 * and counts what the child was sent that the debugger would tell its user. The child rests but for moments, or burns. */
static int traced(const char *how, double duration)
{
    double end = seconds(CLOCK_MONOTONIC) + duration;
    int status, sent = 0, burns = !strcmp(how, "burn");
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGUSR1);
        if (burns)
            burn_until(CLOCK_MONOTONIC, end);
        while (seconds(CLOCK_MONOTONIC) < end)
            usleep(20000);
        _exit(7);
    }
    if (!burns && fork() == 0) {
        burn_until(CLOCK_MONOTONIC, end);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGUSR1)
        return 2;
    while (ptrace(PTRACE_CONT, child, NULL, NULL) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status))
        sent++;
    printf("ended %d, signals %d, used %.3f\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1, sent, used_so_far());
    return 0;
}

/* Whether a process that this one could reach still runs rlrun's own program: its maps tell, and so does its link. */
static int runs_rlrun(int pid)
{
    char path[64], text[4096];
    ssize_t n;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    if ((n = readlink(path, text, sizeof text - 1)) > 0) {
        text[n] = 0;
        if (strstr(text, "rlrun"))
            return 1;
    }
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    int fd = open(path, O_RDONLY);
    int found = 0;
    if (fd >= 0) {
        if ((n = read(fd, text, sizeof text - 1)) > 0) {
            text[n] = 0;
            found = strstr(text, "rlrun") != NULL;
        }
        close(fd);
    }
    return found;
}

static int comm_is_rlruns(int pid)
{
    char path[64], text[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 5 && !memcmp(text, "rlrun", 5);
}

/* The newest pid of this pid namespace (proc_loadavg(5)): whoever came and went unseen is not waited for. */
static int newest_pid(int loadavg)
{
    char text[128];
    ssize_t n = pread(loadavg, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = 0;
    const char *last = strrchr(text, ' ');
    return last ? atoi(last + 1) : 0;
}

/*
 * Lies in wait for processes that enter this container, and tries to get hold of each as long as it is still rlrun's:
 * its memory, program, root, descriptors, and itself by ptrace.
 */
static int stalk(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    unsigned long seen = 0, reached = 0;
    char path[64];
    int loadavg = open("/proc/loadavg", O_RDONLY);
    if (loadavg < 0)
        return 1;
    sigaction(SIGTERM, &action, NULL);
    ready();
    for (int pid = newest_pid(loadavg); !caught;) {
        int newest = newest_pid(loadavg);
        if (newest == pid)
            continue;
        pid = newest;
        int was_rlruns = 0;
        while (!caught && comm_is_rlruns(pid)) {
            static const char *const parts[] = { "mem", "exe", "root", "fd", "cwd", "environ" };
            was_rlruns = 1;
            reached += (unsigned long)runs_rlrun(pid);
            for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                snprintf(path, sizeof path, "/proc/%d/%s", pid, parts[i]);
                int fd = open(path, i ? O_RDONLY : O_RDWR);
                if (fd >= 0) {
                    reached += (unsigned long)runs_rlrun(pid);
                    close(fd);
                }
            }
            if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0) {
                reached += (unsigned long)runs_rlrun(pid);
                ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
                waitpid(pid, NULL, __WALL);
                ptrace(PTRACE_DETACH, pid, NULL, NULL);
            }
        }
        if (was_rlruns) {
            printf("seen %lu\n", ++seen);
            fflush(stdout);
        }
    }
    printf("seen %lu reached %lu\n", seen, reached);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const char *a = argc > 2 ? argv[2] : "0", *b = argc > 3 ? argv[3] : "0";

    if (!strcmp(what, "emit"))
        return emit(1, strtoull(a, NULL, 10), strtoull(b, NULL, 10));
    if (!strcmp(what, "emit-both"))
        return emit_both(strtoull(a, NULL, 10));
    if (!strcmp(what, "digest-stdin"))
        return digest_stdin();
    if (!strcmp(what, "ask-control"))
        return ask_control(a);
    if (!strcmp(what, "trap"))
        return trap();
    if (!strcmp(what, "wait"))
        return wait_forever();
    if (!strcmp(what, "ignore-signals"))
        return ignore_signals();
    if (!strcmp(what, "crash"))
        return *(volatile int *)0;
    if (!strcmp(what, "scatter"))
        return scatter(atoi(a)) || ready();
    if (!strcmp(what, "burn"))
        return burn(atoi(a), atof(b));
    if (!strcmp(what, "storm"))
        return storm(atoi(a), atof(b));
    if (!strcmp(what, "watch"))
        return watch(atof(a));
    if (!strcmp(what, "traced"))
        return traced(a, atof(b));
    if (!strcmp(what, "stays-stopped"))
        return stays_stopped(atof(a));
    if (!strcmp(what, "forks"))
        return start_many(atoi(a), 0, 0);
    if (!strcmp(what, "forks-as"))
        return start_many(atoi(a), (uid_t)atoi(b), 0);
    if (!strcmp(what, "forks-wait"))
        return start_many(atoi(a), 0, 0) || wait_forever();
    if (!strcmp(what, "threads"))
        return start_many(atoi(a), 0, 1);
    if (!strcmp(what, "scatter-wait"))
        return scatter(atoi(a)) || wait_forever();
    if (!strcmp(what, "orphans"))
        return make_orphans(atoi(a)) || wait_forever();
    if (!strcmp(what, "zombies"))
        return make_orphans(atoi(a)) || count_zombies();
    if (!strcmp(what, "window"))
        return window();
    if (!strcmp(what, "overwrite"))
        return say("overwrite", overwrite(a));
    if (!strcmp(what, "hunt"))
        return hunt();
    if (!strcmp(what, "stalk"))
        return stalk();
    if (!strcmp(what, "keyrings"))
        return keyrings();
    if (!strcmp(what, "with-key") && argc > 2)
        return with_key(argv + 2);
    if (!strcmp(what, "denied-calls"))
        return denied_calls();
    if (!strcmp(what, "mounts"))
        return try_mounts(a);
    if (!strcmp(what, "touch-process"))
        return touch_process(atoi(a));
    if (!strcmp(what, "open"))
        return open_file(a, b);
    if (!strcmp(what, "mknod"))
        return say("mknod", mknod(a, S_IFBLK | 0600, makedev(8, 0)));
    if (!strcmp(what, "connect"))
        return try_connect(a, atoi(b));
    if (!strcmp(what, "send-udp"))
        return send_udp(a, atoi(b));
    if (!strcmp(what, "serve-tcp"))
        return serve_tcp(atoi(a));
    if (!strcmp(what, "serve-udp"))
        return serve_udp(atoi(a));
    if (!strcmp(what, "identity"))
        return identity();
    fprintf(stderr, "probe: no such question: %s\n", what);
    return 2;
}
