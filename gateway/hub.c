#include "gateway/hub_priv.h"

#include "gateway/agent_socket.h"
#include "gateway/session.h"

#include "base/log.h"

#include <stdlib.h>

static void on_desk_settled(void *owner, const struct gw_command *c, sl_err err, uint64_t last_number,
                            const char *words)
{
    (void)owner;
    (void)c;
    (void)last_number;
    if (err != SL_OK)
        sl_log(SL_WARN,
               "presence of an agent could not be told to the desk; the next sign of life repeats it",
               SL_KV("error", sl_err_name(err)), SL_KV("why", words != NULL ? words : ""));
}

static void check_hellos(struct gw_hub *hub)
{
    uint64_t now = sl_loop_mono_ms(hub->loop);
    while (hub->hello_first != NULL && hub->hello_first->hello_due_mono_ms <= now)
        gw_session_on_hello_late(hub->hello_first);
}

/* One slot of the wheel: a heartbeat's length brings each session round once. */
static void on_tick(void *arg)
{
    struct gw_hub *hub = arg;
    sl_timer_start(&hub->tick, hub->cfg.heartbeat_ms / GW_WHEEL_SLOTS);
    hub->wheel_at = (hub->wheel_at + 1) % GW_WHEEL_SLOTS;
    for (struct gw_session *s = hub->wheel[hub->wheel_at], *next; s != NULL; s = next) {
        next = s->wheel_next;
        gw_session_on_wheel(s);
    }
    check_hellos(hub);
    sl_gauge_set(hub->commands_gauge, (int64_t)hub->commands);
}

static void on_read_retry(void *arg)
{
    gw_topics_pump(arg);
}

static const struct bus_subscriber_ops subscriber_ops = {
    .confirmed = gw_topics_on_confirmed, .message = gw_topics_on_push, .lost = gw_topics_on_lost};

struct gw_hub *gw_hub_new(const struct gw_hub_config *cfg)
{
    static const char room[GW_FRAME_ROOM];
    struct gw_hub *hub = sl_alloc(sizeof *hub);
    hub->cfg = *cfg;
    hub->loop = cfg->loop;
    hub->bus = cfg->bus;
    hub->channels = sl_map_new();
    hub->sessions = sl_map_new();
    sl_buf_init(&hub->scratch, 0);
    sl_buf_add(&hub->scratch, room, sizeof room);
    bus_args_init(&hub->args);
    sl_timer_init(&hub->tick, hub->loop, on_tick, hub);
    sl_timer_init(&hub->read_retry, hub->loop, on_read_retry, hub);
    sl_timer_init(&hub->command_retry, hub->loop, gw_commands_on_retry, hub);
    sl_timer_init(&hub->alive, hub->loop, gw_agent_on_alive, hub);
    gw_queue_init(&hub->desk, hub, hub, on_desk_settled);
    hub->desk.count_max = GW_DESK_COMMANDS_MAX;
    hub->desk.bytes_max = GW_DESK_COMMANDS_MAX * 1024;
    gw_session_count_frames(hub);
    hub->sessions_gauge = sl_gauge("sluice_gateway_sessions", "", "Open sessions of visitors and agents");
    hub->commands_gauge =
        sl_gauge("sluice_gateway_commands_in_flight", "", "Appends handed to the store, without an answer");
    sl_gauge_max(hub->commands_gauge, BUS_IN_FLIGHT_MAX);
    hub->reads_gauge = sl_gauge("sluice_gateway_reads", "", "Logs being read for sockets");
    sl_gauge_max(hub->reads_gauge, GW_READS_MAX + GW_READS_SWEEP_MAX);
    hub->subscriber = bus_subscriber_open(hub->bus, &subscriber_ops, hub);
    sl_timer_start(&hub->tick, hub->cfg.heartbeat_ms / GW_WHEEL_SLOTS);
    sl_timer_start(&hub->alive, hub->cfg.alive_ms);
    return hub;
}

void gw_hub_stop(struct gw_hub *hub)
{
    sl_assert(hub->session_count == 0);
    sl_timer_stop(&hub->tick);
    sl_timer_stop(&hub->read_retry);
    sl_timer_stop(&hub->command_retry);
    sl_timer_stop(&hub->alive);
    gw_queue_fini(&hub->desk);
    bus_subscriber_close(&hub->subscriber);
}

void gw_hub_free(struct gw_hub **hubp)
{
    struct gw_hub *hub = *hubp;
    *hubp = NULL;
    if (hub == NULL)
        return;
    bus_args_fini(&hub->args);
    sl_buf_fini(&hub->scratch);
    sl_map_free(&hub->channels);
    sl_map_free(&hub->sessions);
    free(hub);
}

void gw_hub_store_ready(struct gw_hub *hub, bool is_ready)
{
    if (is_ready)
        gw_topics_pump(hub);
}

struct sl_buf *gw_hub_frame(struct gw_hub *hub)
{
    hub->scratch.len = GW_FRAME_ROOM;
    hub->scratch.overflow = false;
    return &hub->scratch;
}

void gw_hub_send(struct gw_hub *hub, struct gw_wire *w, enum gw_urgency when)
{
    sl_assert(!hub->scratch.overflow); /* entries and states are bounded far below SL_BUF_MAX */
    w->ops->send(w, sl_str_n(hub->scratch.ptr + GW_FRAME_ROOM, hub->scratch.len - GW_FRAME_ROOM), when);
}
