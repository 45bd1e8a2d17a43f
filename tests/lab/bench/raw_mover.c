// SPDX-License-Identifier: Apache-2.0
/* raw_mover PID START SIZE STEP NODE BATCH MOVERS
 *
 * The least that moves memory: calls move_pages(2) for each STEP bytes of an address range, BATCH
 * addresses a call, by so many processes at a time, each with a part of the range. Prints "NANOSECONDS
 * LEFT", how long that took and how many addresses are not on NODE afterwards, as the calls say.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MPOL_MF_MOVE = 1 << 1 }; /* linux/mempolicy.h */

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long move(pid_t pid, uintptr_t start, long count, size_t step, int node, long batch)
{
	uintptr_t *addresses = calloc(batch, sizeof *addresses);
	int *nodes = calloc(batch, sizeof *nodes), *status = calloc(batch, sizeof *status);
	long left = 0;
	for (long done = 0; done < count; done += batch) {
		long size = count - done < batch ? count - done : batch;
		for (long i = 0; i < size; i++) {
			addresses[i] = start + (done + i) * step;
			nodes[i] = node;
			status[i] = -1;
		}
		if (syscall(SYS_move_pages, (long)pid, size, addresses, nodes, status, MPOL_MF_MOVE) < 0)
			perror("move_pages");
		for (long i = 0; i < size; i++)
			left += status[i] != node;
	}
	return left;
}

int main(int argc, char **words)
{
	if (argc != 8)
		return 2;
	long numbers[8];
	for (int i = 1; i < 8; i++)
		numbers[i] = strtol(words[i], NULL, 10);
	long step = numbers[4], batch = numbers[6], movers = numbers[7];
	long all = numbers[3] / step, part = (all + movers - 1) / movers;
	long *left = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int64_t begin = now();
	for (long mover = 0; mover < movers; mover++) {
		long first = mover * part, count = all - first < part ? all - first : part;
		/* The last part is this process's own. */
		if (mover + 1 < movers && fork())
			continue;
		left[mover] = move(numbers[1], numbers[2] + first * step, count, step, numbers[5], batch);
		if (mover + 1 < movers)
			_exit(0);
	}
	while (wait(NULL) > 0)
		;
	int64_t taken = now() - begin;
	for (long mover = 1; mover < movers; mover++)
		left[0] += left[mover];
	printf("%ld %ld\n", taken, left[0]);
}
