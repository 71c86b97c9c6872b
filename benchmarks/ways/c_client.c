/* The floor: a C program on libca, blocked on a semaphore until the monitor says Done.
 * Its argument is the busy record's PV; for each line of its input it flies, and answers with the
 * times of its clock, seconds of the POSIX epoch: `kickoff`, when it began, `event`, when the handler
 * of Done began, and `known`, when the thread that waited went on; `busy_stamp` is the IOC's, if seen. */
#include <stdio.h>
#include <stdlib.h>

#include <cadef.h>
#include <epicsEvent.h>
#include <epicsTime.h>
#include <epicsVersion.h>

#define TIMEOUT 60.0

static epicsEventId done;
static volatile int flying = 0;
static epicsTimeStamp heard, busy_stamp;

static void on_event(struct event_handler_args args)
{
    const struct dbr_time_enum *news = args.dbr;
    epicsTimeStamp now;
    epicsTimeGetCurrent(&now);
    if (args.status != ECA_NORMAL)
        return;
    if (flying && news->value == 0) { /* of a short flight Busy and Done may come as one event */
        flying = 0;
        heard = now;
        epicsEventSignal(done);
    } else if (flying) {
        busy_stamp = news->stamp;
    }
}

static double posix(epicsTimeStamp stamp)
{
    return (double)POSIX_TIME_AT_EPICS_EPOCH + stamp.secPastEpoch + 1e-9 * stamp.nsec;
}

int main(int argc, char **argv)
{
    const dbr_enum_t one = 1;
    char line[64];
    chid busy;
    if (argc != 2)
        return 2;
    done = epicsEventMustCreate(epicsEventEmpty);
    SEVCHK(ca_context_create(ca_enable_preemptive_callback), "context");
    SEVCHK(ca_create_channel(argv[1], NULL, NULL, 0, &busy), argv[1]);
    SEVCHK(ca_pend_io(TIMEOUT), argv[1]);
    SEVCHK(ca_create_subscription(DBR_TIME_ENUM, 1, busy, DBE_VALUE, on_event, NULL, NULL), "subscription");
    ca_flush_io();
    printf("{\"client\": \"C on libca of EPICS %s\"}\n", EPICS_VERSION_SHORT);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        epicsTimeStamp began, now;
        epicsTimeGetCurrent(&began);
        busy_stamp.secPastEpoch = 0;
        flying = 1;
        SEVCHK(ca_put(DBR_ENUM, busy, &one), "put of Busy");
        ca_flush_io();
        if (epicsEventWaitWithTimeout(done, TIMEOUT) != epicsEventOK) {
            fprintf(stderr, "no Done within %g s\n", TIMEOUT);
            return 1;
        }
        epicsTimeGetCurrent(&now);
        printf("{\"kickoff\": %.9f, \"event\": %.9f, \"known\": %.9f", posix(began), posix(heard), posix(now));
        if (busy_stamp.secPastEpoch)
            printf(", \"busy_stamp\": %.9f", posix(busy_stamp));
        printf("}\n");
        fflush(stdout);
    }
    return 0;
}
