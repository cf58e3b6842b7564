/* Reads the clocks in four threads and tells what it reads. The first rests for so many microseconds as the program's
 * argument says (1000 where there is none) after every thousand reads, the second twice as long, and so on.
 *
 * Each line on standard input is answered by one on standard output:
 *   read   wall clock and monotonic clock in ns, how often the wall clock went backwards or ran by more than 10 s
 *          between two reads of one thread, and how many reads there were
 *   all    clock:ns for CLOCK_REALTIME, MONOTONIC, REALTIME_COARSE, BOOTTIME, TAI, REALTIME_ALARM, then the same for
 *          gettimeofday (us), time (s), and the time zone that gettimeofday gives, in minutes west
 *   fork   a child is forked that reads the clock as its parent does, writes "child NS" on SIGUSR1 and lives until its
 *          parent ends: prints its pid
 *   exec   a child program is started and waited for ("ok")
 *   bench  ns for one clock_gettime(CLOCK_REALTIME), over a million
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { READERS = 4, BATCH = 1000 };
static const int64_t LEAP = 10000000000;
static atomic_long jumps, reads;
static intptr_t rest_us = 1000;

static int64_t now(clockid_t clock)
{
	struct timespec ts;
	if (clock_gettime(clock, &ts))
		return -1;
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void *hammer(void *number)
{
	int64_t last = now(CLOCK_REALTIME);
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			int64_t this = now(CLOCK_REALTIME);
			if (this < last || this > last + LEAP)
				jumps++;
			last = this;
		}
		reads += BATCH;
		usleep(rest_us * (intptr_t)number);
	}
	return NULL;
}

static void start_readers(void)
{
	pthread_t thread;
	for (intptr_t number = 1; number <= READERS; number++)
		if (pthread_create(&thread, NULL, hammer, (void *)number))
			abort();
}

static void tell_all(void)
{
	static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE,
					   CLOCK_BOOTTIME, CLOCK_TAI,	   CLOCK_REALTIME_ALARM};
	struct timeval tv;
	struct timezone tz = {-1, -1};
	time_t seconds, stored;
	for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++)
		printf("%d:%lld ", clocks[i], (long long)now(clocks[i]));
	gettimeofday(&tv, &tz);
	seconds = time(&stored);
	printf("gettimeofday:%lld time:%lld stored:%lld west:%d\n", tv.tv_sec * 1000000LL + tv.tv_usec,
	       (long long)seconds, (long long)stored, tz.tz_minuteswest);
}

static void answer(int number)
{
	char text[64];
	int length = snprintf(text, sizeof text, "child %lld\n", (long long)now(CLOCK_REALTIME));
	(void)number;
	if (write(STDOUT_FILENO, text, length) != length)
		_exit(1);
}

static void fork_child(void)
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		start_readers();
		for (;;)
			pause();
	}
	printf("%d\n", child);
}

static void run_program(void)
{
	char *argv[] = {"true", NULL};
	pid_t child;
	int status = -1;
	if (posix_spawnp(&child, "true", NULL, NULL, argv, NULL) == 0)
		waitpid(child, &status, 0);
	puts(status == 0 ? "ok" : "failed");
}

int main(int argc, char **argv)
{
	char line[64];
	int64_t start = now(CLOCK_MONOTONIC);
	if (argc > 1)
		rest_us = atoi(argv[1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGUSR1, answer);
	start_readers();
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "read\n")) {
			printf("%lld %lld %ld %ld\n", (long long)now(CLOCK_REALTIME),
			       (long long)(now(CLOCK_MONOTONIC) - start), (long)jumps, (long)reads);
		} else if (!strcmp(line, "all\n")) {
			tell_all();
		} else if (!strcmp(line, "fork\n")) {
			fork_child();
		} else if (!strcmp(line, "exec\n")) {
			run_program();
		} else if (!strcmp(line, "bench\n")) {
			int64_t begin = now(CLOCK_MONOTONIC);
			for (int i = 0; i < 1000000; i++)
				now(CLOCK_REALTIME);
			printf("%lld\n", (long long)(now(CLOCK_MONOTONIC) - begin) / 1000000);
		}
	}
	return 0;
}
