/*
 * Runs one command for a test and answers the question the test cannot: did it leave a process behind?
 *
 *   warden -s SOCKET [-u UID -g GID] [-t] [-k] [-l FILE] [-d SECONDS] -- COMMAND...
 *
 * The warden is a child subreaper (prctl(2)), so whatever the command leaves running becomes its child. It writes lines to
 * SOCKET: `pid N`, then `exit N`, `signal N` or `timeout`, then `left PID NAME` for each process still there after the
 * grace period, then `done MILLISECONDS`. When the test closes its end, everything is killed.
 *
 *   -t   the command gets a session of its own with standard input as its controlling terminal
 *   -l   the command inherits FILE, opened for reading and writing, as descriptor 9
 *   -k   what the command leaves running is meant to: nobody looks for it and nobody kills it
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 5000, EXEC_FAILED = 99 };

static int control;

static void die(const char *what)
{
    fprintf(stderr, "warden: %s: %s\n", what, strerror(errno));
    exit(EXEC_FAILED);
}

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}

static void connect_control(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(address.sun_path, path);
    control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control < 0 || connect(control, (struct sockaddr *)&address, sizeof address) < 0)
        die(path);
}

struct identity {
    uid_t uid;
    gid_t gid;
    int given;
};

static void become(const struct identity *id)
{
    if (!id->given)
        return;
    if (setgroups(1, &id->gid) < 0 || setresgid(id->gid, id->gid, id->gid) < 0 || setresuid(id->uid, id->uid, id->uid) < 0)
        die("drop privileges");
}

static void run(char **command, const struct identity *id, int terminal, const char *leak)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (terminal && (setsid() < 0 || ioctl(0, TIOCSCTTY, 0) < 0))
        die("take the terminal");
    if (leak) {
        int fd = open(leak, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || dup2(fd, 9) < 0)
            die(leak);
        close(fd);
    }
    become(id);
    execvp(command[0], command);
    die(command[0]);
}

/* The children, read from /proc because an orphan's pid is known nowhere else. */
static int for_each_child(void (*action)(pid_t, const char *))
{
    int found = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    if (!proc)
        die("/proc");
    while ((entry = readdir(proc))) {
        char path[300], line[512], *name, *end;
        int parent;
        char state;
        FILE *stat;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (!(stat = fopen(path, "re")))
            continue;
        if (fgets(line, sizeof line, stat) && (name = strchr(line, '(')) && (end = strrchr(line, ')')) &&
            sscanf(end + 1, " %c %d", &state, &parent) == 2 && parent == getpid()) {
            *end = 0;
            action(atoi(entry->d_name), name + 1);
            found++;
        }
        fclose(stat);
    }
    closedir(proc);
    return found;
}

static void report_left(pid_t pid, const char *name) { dprintf(control, "left %d %s\n", pid, name); }
static void kill_child(pid_t pid, const char *name) { (void)name; kill(pid, SIGKILL); }

/* Every descendant ends up as a child of the warden once its own parents are dead: kill until none is left. */
static void kill_all(void)
{
    for (;;) {
        for_each_child(kill_child);
        if (waitpid(-1, NULL, 0) < 0 && errno == ECHILD)
            return;
    }
}

/* Reaps what has ended; returns 1 when no child is left, 0 otherwise. Reports the end of `main_pid` once. */
static int reap(pid_t main_pid, int *main_ended)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != main_pid)
            continue;
        *main_ended = 1;
        if (WIFEXITED(status))
            dprintf(control, "exit %d\n", WEXITSTATUS(status));
        else
            dprintf(control, "signal %d\n", WTERMSIG(status));
    }
    return pid < 0 && errno == ECHILD;
}

static void watch(pid_t main_pid, int signals, long deadline, int keep)
{
    int main_ended = 0, abandoned = 0;
    long ended_at = 0;
    struct signalfd_siginfo ignored;
    struct pollfd fds[2] = { { .fd = signals, .events = POLLIN }, { .fd = control, .events = POLLIN | POLLRDHUP } };

    for (;;) {
        if (reap(main_pid, &main_ended))
            break;
        if (main_ended && keep) {
            dprintf(control, "done 0\n");
            return;
        }
        if (main_ended && !ended_at) {
            ended_at = now_ms();
            deadline = ended_at + GRACE_MS;
        }
        long left = deadline - now_ms();
        if (left <= 0)
            break;
        poll(fds, 2, left > 1000 ? 1000 : (int)left);
        if (fds[0].revents && read(signals, &ignored, sizeof ignored) < 0)
            die("signalfd");
        if (fds[1].revents) {
            abandoned = 1;
            break;
        }
    }
    if (!abandoned) {
        if (!main_ended)
            dprintf(control, "timeout\n");
        for_each_child(report_left);
    }
    kill_all();
    if (!abandoned)
        dprintf(control, "done %ld\n", ended_at ? now_ms() - ended_at : 0);
}

int main(int argc, char **argv)
{
    struct identity id = { 0 };
    const char *leak = NULL, *socket_path = NULL;
    int option, terminal = 0, keep = 0;
    long seconds = 60;
    sigset_t child;
    pid_t pid;

    while ((option = getopt(argc, argv, "+s:u:g:tkl:d:")) != -1) {
        switch (option) {
        case 's': socket_path = optarg; break;
        case 'u': id.uid = (uid_t)atoi(optarg); id.given = 1; break;
        case 'g': id.gid = (gid_t)atoi(optarg); break;
        case 't': terminal = 1; break;
        case 'k': keep = 1; break;
        case 'l': leak = optarg; break;
        case 'd': seconds = atol(optarg); break;
        default: return EXEC_FAILED;
        }
    }
    if (!socket_path || optind >= argc) {
        errno = EINVAL;
        die("arguments");
    }
    connect_control(socket_path);
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    if (!keep && prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        die("become a subreaper");
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        die("signalfd");

    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        run(argv + optind, &id, terminal, leak);
    }
    /* The descriptors belong to the command: its readers must see the end of file when it ends. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    dprintf(control, "pid %d\n", pid);
    watch(pid, signals, now_ms() + seconds * 1000, keep);
    return 0;
}
