/*
 * What accounting costs whole system calls on this kernel: each one by a task in the root memcg and
 * by the same task in a group, in turn.
 *
 *     gcc -O2 -o /tmp/syscalls benchmarks/syscalls.c
 *     mkdir /sys/fs/cgroup/memory/kmb_syscalls
 *     /tmp/syscalls /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/memory/kmb_syscalls/cgroup.procs
 *     rmdir /sys/fs/cgroup/memory/kmb_syscalls
 *
 * Needs root; on a mixed hierarchy name the files of cgroup v2.  Prints the first quartile of the CPU
 * time of a call over repeats, ns, in the root and in the group, what is more, and the ratio.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { REPEATS = 41, CALLS = 1024, RUN = 64 };

static int queue[RUN], pair[2];
static struct { long type; char text[8192]; } message = { 1 };

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(2);
	}
}

static void close_both(int fd[2])
{
	close(fd[0]);
	close(fd[1]);
}

static void pass_messages(int size, int run)
{
	for (int i = 0; i < run; i++)
		must(msgsnd(queue[i], &message, size, 0) == 0, "msgsnd");
	for (int i = 0; i < run; i++)
		must(msgrcv(queue[i], &message, size, 0, 0) == size, "msgrcv");
}

static void do_stat(void) { struct stat st; must(stat("/etc/passwd", &st) == 0, "stat"); }
static void do_open(void) { close(open("/etc/passwd", O_RDONLY)); }
static void do_eventfd(void) { close(eventfd(0, 0)); }
static void do_pipe(void) { int fd[2]; must(pipe(fd) == 0, "pipe"); close_both(fd); }

/* With its head of 48 bytes a message is an object of 64, 1024, 2048, and twice of 4096 bytes. */
static void do_message(void) { pass_messages(8, 1); }
static void do_messages(void) { pass_messages(976, RUN); }
static void do_half_page(void) { pass_messages(2000, 1); }
static void do_one_more(void) { pass_messages(2001, 1); }
static void do_page(void) { pass_messages(4048, 1); }

static void do_socketpair(void)
{
	int fd[2];

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0, "socketpair");
	close_both(fd);
}

static void do_send(void)
{
	must(send(pair[0], message.text, 64, 0) == 64, "send");
	must(recv(pair[1], message.text, 64, 0) == 64, "recv");
}

static const struct { const char *name; void (*run)(void); int nr; } calls[] = {
	{ "stat", do_stat, 1 }, { "open, close", do_open, 1 }, { "message of 8 B", do_message, 1 },
	{ "64 messages of 976 B", do_messages, RUN }, { "message of 2000 B", do_half_page, 1 },
	{ "message of 2001 B", do_one_more, 1 }, { "message of 4048 B", do_page, 1 },
	{ "unix send, receive", do_send, 1 }, { "eventfd, close", do_eventfd, 1 },
	{ "pipe, close", do_pipe, 1 }, { "socketpair, close", do_socketpair, 1 },
};
enum { NR = sizeof(calls) / sizeof(*calls) };
static double took[2][NR][REPEATS];

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void enter(const char *procs)
{
	FILE *file = fopen(procs, "w");

	must(file && fprintf(file, "%d", getpid()) > 0 && fclose(file) == 0, procs);
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: syscalls ROOT/cgroup.procs GROUP/cgroup.procs\n");
		return 2;
	}
	for (int i = 0; i < RUN; i++)
		must((queue[i] = msgget(IPC_PRIVATE, 0600)) >= 0, "msgget");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	for (int repeat = 0; repeat < REPEATS; repeat++)
		for (int where = 0; where < 2; where++) {
			enter(argv[1 + where]);
			for (int i = 0; i < NR; i++) {
				calls[i].run();
				double began = cpu_ns();
				for (int n = 0; n < CALLS; n += calls[i].nr)
					calls[i].run();
				took[where][i][repeat] = (cpu_ns() - began) / CALLS;
			}
		}
	enter(argv[1]);
	for (int i = 0; i < RUN; i++)
		msgctl(queue[i], IPC_RMID, 0);
	printf("%-20s %8s %8s %6s %6s\n", "ns a call", "root", "group", "over", "ratio");
	for (int i = 0; i < NR; i++) {
		for (int where = 0; where < 2; where++)
			qsort(took[where][i], REPEATS, sizeof(double), by_size);
		double root = took[0][i][REPEATS / 4], group = took[1][i][REPEATS / 4];
		printf("%-20s %8.0f %8.0f %6.0f %6.3f\n", calls[i].name, root, group, group - root,
		       group / root);
	}
	return 0;
}
