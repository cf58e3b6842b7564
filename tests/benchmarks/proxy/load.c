/* Client and upstream of a proxy under test, in one process, on 127.0.0.1. One line of JSON on standard output.
 *
 *   load stream UPSTREAM PROXY SECONDS CONNECTIONS up|down   bytes at the receiver
 *   load ping   UPSTREAM PROXY COUNT BYTES GAP_US            round trips, blocking, no Nagle
 *   load churn  UPSTREAM PROXY SECONDS THREADS               connect, one byte there and back, close
 *   load idle   UPSTREAM PROXY CONNECTIONS                   one round trip on each, then held until stdin ends
 *
 * UPSTREAM is the port to listen on, PROXY the one to connect to (the same: no proxy between).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 256 << 10, RECEIVE = 1 << 20, SMALL = 65536, BACKLOG = 4096, WARM_UP = 20 };

static int listener, proxy_port;
static atomic_int stopping;
static atomic_ullong bytes_received, round_trips, failures;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(2);
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void listen_on(int port) {
    int on = 1;
    struct sockaddr_in address = loopback(port);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, BACKLOG)) die("listen");
}

static int connect_to_proxy(void) {
    struct sockaddr_in address = loopback(proxy_port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address)) {
        close(fd);
        return -1;
    }
    no_delay(fd);
    return fd;
}

static void start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, run, argument)) die("pthread_create");
}

static int send_all(int fd, const void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t sent = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (sent <= 0) return -1;
        done += (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t got = recv(fd, (char *)data + done, size - done, 0);
        if (got <= 0) return -1;
        done += (size_t)got;
    }
    return 0;
}

static void *sending(void *argument) {
    int fd = (int)(intptr_t)argument;
    char *block = calloc(1, BLOCK);
    while (!stopping && send(fd, block, BLOCK, MSG_NOSIGNAL) > 0) continue;
    return NULL;
}

static void *receiving(void *argument) {
    int fd = (int)(intptr_t)argument;
    for (ssize_t got; (got = recv(fd, NULL, RECEIVE, MSG_TRUNC)) > 0;) bytes_received += (uint64_t)got;
    return NULL;
}

static void *echoing(void *argument) {
    int fd = (int)(intptr_t)argument;
    char data[SMALL];
    for (ssize_t got; (got = recv(fd, data, sizeof data, 0)) > 0 && !send_all(fd, data, (size_t)got);) continue;
    close(fd);
    return NULL;
}

static void *accepting(void *run) {
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
        no_delay(fd);
        start((void *(*)(void *))run, (void *)(intptr_t)fd);
    }
    return NULL;
}

/* An echo server for very many connections. */
static void *echoing_by_epoll(void *unused) {
    (void)unused;
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    char data[4096];
    for (;;) {
        int count = epoll_wait(poller, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client < 0) continue;
                no_delay(client);
                event.events = EPOLLIN;
                event.data.fd = client;
                epoll_ctl(poller, EPOLL_CTL_ADD, client, &event);
            } else {
                ssize_t got = recv(fd, data, sizeof data, 0);
                if (got <= 0 || send_all(fd, data, (size_t)got)) close(fd);
            }
        }
    }
    return NULL;
}

static int stream(double seconds, int connections, int down) {
    start(accepting, down ? (void *)sending : (void *)receiving);
    for (int i = 0; i < connections; i++) {
        int fd = connect_to_proxy();
        if (fd < 0) die("connect");
        start(down ? receiving : sending, (void *)(intptr_t)fd);
    }
    for (int tries = 0; !bytes_received && tries < 3000; tries++) usleep(1000);
    uint64_t began = now_ns(), first = bytes_received;
    usleep((useconds_t)(seconds * 1e6));
    uint64_t last = bytes_received, ended = now_ns();
    stopping = 1;
    printf("{\"gb_per_s\": %.4f, \"gb\": %.4f}\n", (double)(last - first) / (double)(ended - began), (double)last / 1e9);
    return 0;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int ping(int count, size_t size, unsigned gap_us) {
    struct sched_param urgent = {.sched_priority = 20};
    if (gap_us) sched_setscheduler(0, SCHED_FIFO, &urgent); /* the measure should be better than the measured; where allowed */
    start(accepting, (void *)echoing);
    int fd = connect_to_proxy();
    if (fd < 0) die("connect");
    char *data = calloc(1, size);
    uint64_t *took = malloc(sizeof *took * (size_t)count);
    unsigned random = 1;
    for (int i = -WARM_UP; i < count; i++) {
        random = random * 1103515245u + 12345u;
        if (gap_us) usleep((random >> 8) % gap_us);
        uint64_t began = now_ns();
        if (send_all(fd, data, size) || receive_all(fd, data, size)) die("round trip");
        if (i >= 0) took[i] = now_ns() - began;
    }
    qsort(took, (size_t)count, sizeof *took, by_value);
    printf("{\"min_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n", (double)took[0] / 1e3,
           (double)took[count / 2] / 1e3, (double)took[count * 99 / 100] / 1e3, (double)took[count - 1] / 1e3);
    return 0;
}

static void *churning(void *unused) {
    (void)unused;
    struct linger reset = {1, 0}; /* no TIME_WAIT: ports would run out */
    char byte = 'x';
    while (!stopping) {
        int fd = connect_to_proxy();
        if (fd < 0) {
            failures++;
            usleep(1000);
            continue;
        }
        if (!send_all(fd, &byte, 1) && !receive_all(fd, &byte, 1)) round_trips++;
        else failures++;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    return NULL;
}

static int churn(double seconds, int threads) {
    start(echoing_by_epoll, NULL);
    for (int i = 0; i < threads; i++) start(churning, NULL);
    usleep(200000);
    uint64_t began = now_ns(), first = round_trips;
    usleep((useconds_t)(seconds * 1e6));
    printf("{\"per_s\": %.1f, \"count\": %llu, \"failures\": %llu}\n",
           (double)(round_trips - first) * 1e9 / (double)(now_ns() - began), (unsigned long long)round_trips,
           (unsigned long long)failures);
    return 0;
}

static int idle(int connections) {
    start(echoing_by_epoll, NULL);
    int good = 0;
    for (int i = 0; i < connections; i++) {
        char byte = 'x';
        int fd = connect_to_proxy();
        if (fd >= 0 && !send_all(fd, &byte, 1) && !receive_all(fd, &byte, 1)) good++;
    }
    printf("{\"connections\": %d}\n", good);
    fflush(stdout);
    for (char byte; read(0, &byte, 1) > 0;) continue;
    return 0;
}

int main(int count, char **words) {
    if (count < 5) return 2;
    const char *mode = words[1];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    listen_on(atoi(words[2]));
    proxy_port = atoi(words[3]);
    int status = 2;
    if (!strcmp(mode, "stream") && count == 7) status = stream(atof(words[4]), atoi(words[5]), !strcmp(words[6], "down"));
    if (!strcmp(mode, "ping") && count == 7) status = ping(atoi(words[4]), (size_t)atoi(words[5]), (unsigned)atoi(words[6]));
    if (!strcmp(mode, "churn") && count == 6) status = churn(atof(words[4]), atoi(words[5]));
    if (!strcmp(mode, "idle") && count == 5) status = idle(atoi(words[4]));
    fflush(stdout);
    _exit(status);
}
