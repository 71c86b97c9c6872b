/* The floor: a C program on libca, blocked on a semaphore until the monitor says Done.
 * Like the other ways: the prefix is its argument, the flights' lengths (s) are its input,
 * and for each it writes the seconds from the IOC's stamp of Done to when it knew. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cadef.h>
#include <epicsEvent.h>
#include <epicsTime.h>

#define TIMEOUT 30.0
#define WARM_UP 5
#define MOST_FLIGHTS 100000

static epicsEventId done;
static volatile int last = -1;
static epicsTimeStamp stamp;

static void on_event(struct event_handler_args args)
{
    const struct dbr_time_enum *news = args.dbr;
    if (args.status != ECA_NORMAL)
        return;
    if (last == 1 && news->value == 0) {
        stamp = news->stamp;
        epicsEventSignal(done);
    }
    last = news->value;
}

static chid connect_to(const char *prefix, const char *record)
{
    char name[128];
    chid channel;
    snprintf(name, sizeof name, "%s%s", prefix, record);
    SEVCHK(ca_create_channel(name, NULL, NULL, 0, &channel), name);
    SEVCHK(ca_pend_io(TIMEOUT), name);
    return channel;
}

static double fly(chid duration, chid busy, double length)
{
    const dbr_enum_t one = 1;
    epicsTimeStamp now;
    SEVCHK(ca_put(DBR_DOUBLE, duration, &length), "put of the duration");
    SEVCHK(ca_put(DBR_ENUM, busy, &one), "put of Busy");
    ca_flush_io();
    if (epicsEventWaitWithTimeout(done, TIMEOUT) != epicsEventOK) {
        fprintf(stderr, "no Done within %g s\n", TIMEOUT);
        exit(1);
    }
    epicsTimeGetCurrent(&now);
    return epicsTimeDiffInSeconds(&now, &stamp);
}

int main(int argc, char **argv)
{
    static double lengths[MOST_FLIGHTS];
    int flights = 0, flight;
    chid duration, busy;
    if (argc != 2)
        return 2;
    while (flights < MOST_FLIGHTS && scanf("%lf", &lengths[flights]) == 1)
        flights++;
    done = epicsEventMustCreate(epicsEventEmpty);
    SEVCHK(ca_context_create(ca_enable_preemptive_callback), "context");
    duration = connect_to(argv[1], "duration");
    busy = connect_to(argv[1], "mybusy");
    SEVCHK(ca_create_subscription(DBR_TIME_ENUM, 1, busy, DBE_VALUE, on_event, NULL, NULL), "subscription");
    ca_flush_io();
    for (flight = -WARM_UP; flight < flights; flight++) {
        double delay = fly(duration, busy, lengths[flight < 0 ? 0 : flight]);
        if (flight >= 0)
            printf("%.9f\n", delay);
    }
    return 0;
}
