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
 * time of a call over repeats, ns, in the root and in the group, and their ratio.
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

enum { REPEATS = 41, CALLS = 1000 };

static int queue, pair[2];
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

static void pass_message(int size)
{
	must(msgsnd(queue, &message, size, 0) == 0, "msgsnd");
	must(msgrcv(queue, &message, size, 0, 0) == size, "msgrcv");
}

static void do_stat(void) { struct stat st; must(stat("/etc/passwd", &st) == 0, "stat"); }
static void do_open(void) { close(open("/etc/passwd", O_RDONLY)); }
static void do_eventfd(void) { close(eventfd(0, 0)); }
static void do_pipe(void) { int fd[2]; must(pipe(fd) == 0, "pipe"); close_both(fd); }
static void do_message(void) { pass_message(8); }
static void do_page_message(void) { pass_message(4040); }

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

static const struct { const char *name; void (*run)(void); } calls[] = {
	{ "stat", do_stat }, { "open, close", do_open }, { "message of 8 B", do_message },
	{ "unix send, receive", do_send }, { "eventfd, close", do_eventfd },
	{ "pipe, close", do_pipe }, { "socketpair, close", do_socketpair },
	{ "message of 4040 B", do_page_message },
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
	queue = msgget(IPC_PRIVATE, 0600);
	must(queue >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "msgget, socketpair");
	for (int repeat = 0; repeat < REPEATS; repeat++)
		for (int where = 0; where < 2; where++) {
			enter(argv[1 + where]);
			for (int i = 0; i < NR; i++) {
				calls[i].run();
				double began = cpu_ns();
				for (int n = 0; n < CALLS; n++)
					calls[i].run();
				took[where][i][repeat] = (cpu_ns() - began) / CALLS;
			}
		}
	enter(argv[1]);
	msgctl(queue, IPC_RMID, 0);
	printf("%-20s %8s %8s %6s\n", "ns a call", "root", "group", "ratio");
	for (int i = 0; i < NR; i++) {
		for (int where = 0; where < 2; where++)
			qsort(took[where][i], REPEATS, sizeof(double), by_size);
		double root = took[0][i][REPEATS / 4], group = took[1][i][REPEATS / 4];
		printf("%-20s %8.0f %8.0f %6.3f\n", calls[i].name, root, group, group / root);
	}
	return 0;
}
