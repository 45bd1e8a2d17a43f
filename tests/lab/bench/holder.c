// SPDX-License-Identifier: Apache-2.0
/* holder small|thp MIB NODE [touch|allocate]
 *
 * Holds memory that came from NODE, in small or in huge pages, and prints "START SIZE" when all of
 * it is there. With `touch` it goes on writing to each page in turn, with `allocate` it also maps
 * and unmaps a page every so often, as programs do that take and give back memory. SIGUSR1 ends a
 * lap of that: it prints "LONGEST LOST STEPS WRONG", the longest time between two steps and the sum
 * of those above a millisecond, in nanoseconds, how many steps there were, and how many pages did
 * not hold what was written to them before.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, STEPS_BETWEEN_MAPS = 256, LONG = 1000000 };
enum { MPOL_DEFAULT = 0, MPOL_BIND = 2 }; /* linux/mempolicy.h */

static volatile sig_atomic_t lap_ended;

static void end_lap(int number)
{
	(void)number;
	lap_ended = 1;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static char *map(size_t size)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static char *take(size_t size, int node, int advice)
{
	unsigned long mask = 1UL << node;
	if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 64))
		fail("set_mempolicy");
	char *memory = map(size + HUGE_PAGE);
	memory += -(uintptr_t)memory % HUGE_PAGE;
	if (madvise(memory, size, advice))
		fail("madvise");
	for (size_t place = 0; place < size; place += PAGE)
		*(volatile uint64_t *)(memory + place) = 0;
	if (syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0))
		fail("set_mempolicy");
	return memory;
}

static void touch(char *memory, size_t size, int allocates)
{
	int64_t longest = 0, lost = 0, steps = 0, wrong = 0, before = now();
	for (uint64_t round = 0;; round++)
		for (size_t place = 0; place < size; place += PAGE) {
			volatile uint64_t *word = (uint64_t *)(memory + place);
			wrong += *word != round;
			*word = round + 1;
			if (allocates && steps % STEPS_BETWEEN_MAPS == 0)
				munmap(map(PAGE), PAGE);
			int64_t after = now();
			if (after - before > longest)
				longest = after - before;
			if (after - before > LONG)
				lost += after - before;
			before = after;
			steps++;
			if (lap_ended) {
				/* First: who reads the line may end the next lap at once. */
				lap_ended = 0;
				printf("%ld %ld %ld %ld\n", longest, lost, steps, wrong);
				longest = lost = steps = wrong = 0;
				before = now();
			}
		}
}

int main(int count, char **words)
{
	if (count < 4)
		return 2;
	size_t size = strtoul(words[2], NULL, 10) << 20;
	int huge = !strcmp(words[1], "thp");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGUSR1, end_lap);
	char *memory = take(size, atoi(words[3]), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	printf("%lu %zu\n", (unsigned long)memory, size);
	if (count > 4)
		touch(memory, size, !strcmp(words[4], "allocate"));
	for (;;)
		pause();
}
