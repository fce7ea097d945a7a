/* router/watchdog.h - ends the process when step() does not come back.
 *
 * What     a thread wakes every 500 ms. When the same step has been running over five of its own wakings in a
 *          row (2 to 2.5 s), the event is poison that loops: the process aborts, and the takeover is counted
 *          at that event (bus/partition.h, Poison).
 * Pauses   a process that was stopped (SIGSTOP) wakes with an old step too: a waking that came late counts as
 *          the first again.
 */
#ifndef ROUTER_WATCHDOG_H
#define ROUTER_WATCHDOG_H

struct watchdog;
struct watchdog *watchdog_start(void);
void watchdog_stop(struct watchdog **w);

#endif
