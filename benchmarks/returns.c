/*
 * What a call and its return take where the return is predicted and where it is as Safe RET has it
 * (Linux 6.18 arch/x86/lib/retpoline.S:srso_return_thunk), in a chain of functions whose code is
 * spread over ever more lines: whether a loop of one call, as `kmbench hardware calibrate` measures
 * it, tells what one on a path costs.
 *
 *     gcc -O2 -o returns benchmarks/returns.c && ./returns
 *
 * x86-64.  Prints the first quartile over repeats, ns a call, functions and all; they lie in random
 * order and consist of additions to four registers in turn.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { REPEATS = 21, CALLS = 200000, LINE = 64, MOST = 1024 };

static uint8_t *text;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* A call or jump to `to`; where the next instruction goes. */
static uint8_t *branch(uint8_t *at, uint8_t opcode, const uint8_t *to)
{
	int32_t away = to - (at + 5);

	*at = opcode;
	memcpy(at + 1, &away, sizeof(away));
	return at + 5;
}

/* `nr` functions of `adds` additions, and one that calls each; ns a call. */
static double chain(int nr, int adds, int safe)
{
	static const uint8_t add[4][4] = {
		{ 0x48, 0x83, 0xc0, 1 }, { 0x48, 0x83, 0xc1, 1 },
		{ 0x48, 0x83, 0xc2, 1 }, { 0x48, 0x83, 0xc6, 1 },
	};
	static const uint8_t leave[] = { 0x48, 0x8d, 0x64, 0x24, 0x08, 0xc3, 0xcc };
	int lines = (4 * adds + 5 + LINE - 1) / LINE, order[MOST];
	uint8_t *caller = text, *thunk = text + 16384, *first = text + 32768;
	double took[REPEATS];

	memcpy(thunk + 32, leave, sizeof(leave)); /* lea 8(%rsp), %rsp; ret; int3 */
	memcpy(branch(thunk, 0xe8, thunk + 32), "\x0f\x0b", 2); /* call; ud2 */
	for (int i = 0; i < nr; i++) {
		int j = rand() % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (int i = 0; i < nr; i++) {
		uint8_t *function = first + order[i] * lines * LINE, *at = function;

		for (int n = 0; n < adds; n++, at += 4)
			memcpy(at, add[n & 3], 4);
		if (safe)
			branch(at, 0xe9, thunk);
		else
			*at = 0xc3;
		caller = branch(caller, 0xe8, function);
	}
	*caller = 0xc3;
	for (int r = -1; r < REPEATS; r++) {
		double began = now_ns();

		for (int n = 0; n < CALLS; n += nr)
			__asm__ volatile("call *%0" : : "r"(text)
					 : "rax", "rcx", "rdx", "rsi", "cc", "memory");
		if (r >= 0)
			took[r] = (now_ns() - began) / CALLS;
	}
	qsort(took, REPEATS, sizeof(double), by_size);
	return took[REPEATS / 4];
}

int main(void)
{
	static const int functions[] = { 8, 32, 64, 128, 256, 512, 1024 }, bodies[] = { 1, 16, 32 };

	text = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	if (text == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	printf("%9s %12s %9s %9s %9s %9s\n", "functions", "instructions", "KiB", "predicted",
	       "Safe RET", "more");
	for (size_t b = 0; b < sizeof(bodies) / sizeof(*bodies); b++)
		for (size_t f = 0; f < sizeof(functions) / sizeof(*functions); f++) {
			int nr = functions[f], adds = bodies[b];
			double plain = chain(nr, adds, 0), safe = chain(nr, adds, 1);

			printf("%9d %12d %9.1f %9.2f %9.2f %9.2f\n", nr, adds,
			       nr * ((4 * adds + 5 + LINE - 1) / LINE) * LINE / 1024.0, plain, safe,
			       safe - plain);
		}
	return 0;
}
