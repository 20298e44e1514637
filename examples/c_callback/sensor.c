/* A sensor's driver, as vendors ship them: it calls back in a thread of its own. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

typedef void (*on_value)(void *user, double value);

struct request {
    on_value call;
    void *user;
};

static pthread_t stream_thread;
static atomic_int streaming;

static void pause_for(long microseconds)
{
    struct timespec time = {0, microseconds * 1000};
    nanosleep(&time, NULL);
}

static void *measure(void *argument)
{
    struct request request = *(struct request *)argument;
    free(argument);
    pause_for(2000);
    request.call(request.user, 21.5);
    return NULL;
}

/* Call back once, in a new thread. Returns 0, or an errno. */
int sensor_measure(on_value call, void *user)
{
    pthread_t thread;
    struct request *request = malloc(sizeof *request);
    request->call = call;
    request->user = user;
    int error = pthread_create(&thread, NULL, measure, request);
    if (error) {
        free(request);
        return error;
    }
    return pthread_detach(thread);
}

static void *stream(void *argument)
{
    struct request request = *(struct request *)argument;
    free(argument);
    for (int number = 0; atomic_load(&streaming); number++) {
        request.call(request.user, 20.0 + number % 10 / 10.0);
        pause_for(200);
    }
    return NULL;
}

/* Call back again and again, in one thread, until sensor_stop. Returns 0, or an errno. */
int sensor_start(on_value call, void *user)
{
    struct request *request = malloc(sizeof *request);
    request->call = call;
    request->user = user;
    atomic_store(&streaming, 1);
    int error = pthread_create(&stream_thread, NULL, stream, request);
    if (error)
        free(request);
    return error;
}

/* Returns when no callback runs any more. */
int sensor_stop(void)
{
    atomic_store(&streaming, 0);
    return pthread_join(stream_thread, NULL);
}
