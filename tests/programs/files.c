// A program that does what it is told with one file, and says which errors it got: the target of io.* and syscall.*.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *path;
static volatile sig_atomic_t alarms;

static long micros(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void say_round(void)
{
	long began = micros();
	int wrote, synced, got, fd = open(path, O_CREAT | O_RDWR, 0644);
	char byte;

	if (fd < 0) {
		printf("%d 0 0 0 %ld\n", errno, micros() - began);
		return;
	}
	wrote = pwrite(fd, "x", 1, 0) < 0 ? errno : 0;
	synced = fsync(fd) < 0 ? errno : 0;
	got = pread(fd, &byte, 1, 0) < 0 ? errno : 0;
	close(fd);
	printf("0 %d %d %d %ld\n", wrote, synced, got, micros() - began);
}

static int many(long count)
{
	int failed = 0, fd = open(path, O_CREAT | O_RDWR, 0644);

	for (long i = 0; i < count; i++)
		failed += fsync(fd) < 0;
	close(fd);
	return failed;
}

static void *store(void *given)
{
	char name[4096], record[16];
	long count = ((long *)given)[0], worker = ((long *)given)[1], offset = 0;
	int fd;

	snprintf(name, sizeof(name), "%s.%ld", path, worker);
	fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0644);
	for (long i = 0; i < count; i++) {
		int length = snprintf(record, sizeof(record), "%08ld\n", i);

		while (pwrite(fd, record, length, offset) != length)
			;
		offset += length;
	}
	close(fd);
	return NULL;
}

static void store_all(long count)
{
	pthread_t threads[4];
	long given[4][2];

	for (int i = 0; i < 4; i++) {
		given[i][0] = count;
		given[i][1] = i;
		pthread_create(&threads[i], NULL, store, given[i]);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	puts("stored");
}

static void in_a_child(void)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		say_round();
		fflush(stdout);
		_exit(0);
	}
	if (child < 0)
		printf("%d 0 0 0 0\n", errno);
	else
		waitpid(child, NULL, 0);
}

/* Leaves a child behind that does a round on SIGUSR1 and outlives its parent. */
static void leave_a_child(void)
{
	fflush(stdout);
	pid_t child = fork();

	if (child == 0) {
		sigset_t set;
		int number;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		printf("%d\n", getpid());
		fflush(stdout);
		while (!sigwait(&set, &number)) {
			say_round();
			fflush(stdout);
		}
	}
}

static void on_alarm(int number)
{
	(void)number;
	alarms++;
}

/* One fsync while a timer's signal arrives every millisecond: what the handlers interrupt must go on as before. */
static void under_signals(void)
{
	struct sigaction action = {.sa_handler = on_alarm};
	struct timespec every = {0, 1000000};
	struct itimerspec period = {every, every};
	timer_t timer;
	int fd = open(path, O_CREAT | O_RDWR, 0644), failed;
	long began = micros();

	sigaction(SIGALRM, &action, NULL);
	alarms = 0;
	timer_create(CLOCK_MONOTONIC, NULL, &timer);
	timer_settime(timer, 0, &period, NULL);
	failed = fsync(fd) < 0 ? errno : 0;
	timer_delete(timer);
	close(fd);
	printf("%d %ld %d\n", failed, micros() - began, (int)alarms);
}

int main(int argc, char **argv)
{
	char line[256];
	sigset_t set;

	if (argc < 2)
		return 2;
	path = argv[1];
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "round", 5))
			say_round();
		else if (!strncmp(line, "many", 4))
			printf("%d\n", many(atol(line + 4)));
		else if (!strncmp(line, "store", 5))
			store_all(atol(line + 5));
		else if (!strncmp(line, "child", 5))
			in_a_child();
		else if (!strncmp(line, "leave", 5))
			leave_a_child();
		else if (!strncmp(line, "signals", 7))
			under_signals();
		else if (!strncmp(line, "exec", 4))
			execv("/proc/self/exe", argv);
		fflush(stdout);
	}
	return 0;
}
