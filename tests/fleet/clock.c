/* Sets the clock of a process: adds to it what the file CLOCK_FILE says, in s. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    char text[32] = {0};
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone), file = open(getenv("CLOCK_FILE"), O_RDONLY);
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
        close(file);
    }
    return failed;
}
