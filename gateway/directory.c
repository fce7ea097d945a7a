#include "gateway/directory.h"

#include "base/crypto.h"

#include <stdio.h>
#include <stdlib.h>

struct gw_people {
    size_t agent_count, token_count;
    struct gw_agent *agents; /* strings owned */
    struct gw_token *tokens;
};

static const char *entry_key(char *out, size_t size, const char *section, const char *name, const char *key)
{
    int n = snprintf(out, size, "%s.%s.%s", section, name, key);
    sl_assert(n > 0 && (size_t)n < size); /* entry names are bounded by the reader of the file */
    return out;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The list as sorted, comma-separated text. NULL: an item cannot be a name. */
static char *sorted_list(const struct sl_config *cfg, const char *key)
{
    const char *const *items;
    size_t count = sl_config_list(cfg, key, &items);
    const char **sorted = sl_alloc((count + 1) * sizeof *sorted);
    struct sl_buf out;
    bool is_fine = true;
    sl_buf_init(&out, 0);
    for (size_t i = 0; i < count; i++)
        sorted[i] = items[i];
    qsort(sorted, count, sizeof *sorted, by_text);
    for (size_t i = 0; i < count; i++) {
        is_fine = is_fine && key_part_ok(sl_str_c(sorted[i]));
        if (i > 0)
            sl_buf_char(&out, ',');
        sl_buf_c(&out, sorted[i]);
    }
    char *text = is_fine ? sl_str_dup(sl_buf_view(&out)) : NULL;
    sl_buf_fini(&out);
    free(sorted);
    return text;
}

static bool is_tenant(const char *tenant)
{
    return key_part_ok(sl_str_c(tenant)) && strlen(tenant) <= KEY_TENANT_MAX_BYTES;
}

static sl_err read_agent(const struct sl_config *cfg, const char *name, struct gw_agent *a,
                         struct sl_fail *why)
{
    char key[256];
    a->id = sl_strdup(name);
    a->tenant = sl_strdup(sl_config_str(cfg, entry_key(key, sizeof key, "agents", name, "tenant")));
    const char *shown = sl_config_str(cfg, entry_key(key, sizeof key, "agents", name, "name"));
    a->name = sl_strdup(shown[0] != '\0' ? shown : name);
    a->password_hash =
        sl_strdup(sl_config_str(cfg, entry_key(key, sizeof key, "agents", name, "password_hash")));
    a->capacity = (unsigned)sl_config_int(cfg, entry_key(key, sizeof key, "agents", name, "capacity"));
    a->skills = sorted_list(cfg, entry_key(key, sizeof key, "agents", name, "skills"));
    a->queues = sorted_list(cfg, entry_key(key, sizeof key, "agents", name, "queues"));
    if (!key_part_ok(sl_str_c(name)) || !is_tenant(a->tenant))
        return sl_fail_set(why, SL_EINVAL, 0, "agents.%s: name and tenant are letters, digits and ._@+- only",
                           name);
    if (a->password_hash[0] != '\0' && !sl_str_starts(sl_str_c(a->password_hash), "$argon2id$"))
        return sl_fail_set(why, SL_EINVAL, 0,
                           "agents.%s.password_hash: expected what `sluice config hash-password` prints",
                           name);
    if (a->skills == NULL || a->queues == NULL)
        return sl_fail_set(why, SL_EINVAL, 0,
                           "agents.%s: skills and queues are letters, digits and ._@+- only", name);
    return SL_OK;
}

static const struct {
    const char *word;
    enum gw_right right;
} rights[] = {{"messages:write", GW_MAY_WRITE_MESSAGES}, {"conversations:read", GW_MAY_READ_CONVERSATIONS}};

static bool add_right(const char *word, unsigned *out)
{
    for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++)
        if (strcmp(word, rights[i].word) == 0) {
            *out |= rights[i].right;
            return true;
        }
    return false;
}

static sl_err read_token(const struct sl_config *cfg, const char *name, struct gw_token *t,
                         struct sl_fail *why)
{
    char key[256];
    const char *const *items;
    t->name = sl_strdup(name);
    t->tenant = sl_strdup(sl_config_str(cfg, entry_key(key, sizeof key, "tokens", name, "tenant")));
    const char *secret = sl_config_str(cfg, entry_key(key, sizeof key, "tokens", name, "secret"));
    if (strlen(secret) < GW_TOKEN_SECRET_MIN_BYTES)
        return sl_fail_set(why, SL_EINVAL, 0, "tokens.%s.secret: give %d bytes or more, or secret_file", name,
                           GW_TOKEN_SECRET_MIN_BYTES);
    if (!is_tenant(t->tenant))
        return sl_fail_set(why, SL_EINVAL, 0, "tokens.%s.tenant: letters, digits and ._@+- only", name);
    sl_sha256(sl_str_c(secret), t->secret_hash);
    t->allowance = GW_TOKEN_BURST;
    size_t count = sl_config_list(cfg, entry_key(key, sizeof key, "tokens", name, "rights"), &items);
    for (size_t i = 0; i < count; i++)
        if (!add_right(items[i], &t->rights))
            return sl_fail_set(why, SL_EINVAL, 0,
                               "tokens.%s.rights: expected messages:write or conversations:read", name);
    return SL_OK;
}

struct gw_people *gw_people_new(const struct sl_config *cfg, struct sl_fail *why)
{
    const char *const *names;
    struct gw_people *p = sl_alloc(sizeof *p);
    sl_err err = SL_OK;
    size_t count = sl_config_entries(cfg, "agents", &names);
    p->agents = sl_alloc((count + 1) * sizeof p->agents[0]);
    for (size_t i = 0; i < count && err == SL_OK; i++)
        err = read_agent(cfg, names[i], &p->agents[p->agent_count++], why);
    count = sl_config_entries(cfg, "tokens", &names);
    p->tokens = sl_alloc((count + 1) * sizeof p->tokens[0]);
    for (size_t i = 0; i < count && err == SL_OK; i++)
        err = read_token(cfg, names[i], &p->tokens[p->token_count++], why);
    if (err != SL_OK)
        gw_people_free(&p);
    return p;
}

static void free_const(const char *s)
{
    free((void *)(uintptr_t)s);
}

void gw_people_free(struct gw_people **pp)
{
    struct gw_people *p = *pp;
    *pp = NULL;
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->agent_count; i++) {
        struct gw_agent *a = &p->agents[i];
        free_const(a->tenant);
        free_const(a->id);
        free_const(a->name);
        free_const(a->password_hash);
        free_const(a->skills);
        free_const(a->queues);
    }
    for (size_t i = 0; i < p->token_count; i++) {
        free(p->tokens[i].name);
        free(p->tokens[i].tenant);
    }
    free(p->agents);
    free(p->tokens);
    free(p);
}

const struct gw_agent *gw_people_agent(const struct gw_people *p, struct sl_str tenant,
                                       struct sl_str id_or_name)
{
    const struct gw_agent *named = NULL;
    for (size_t i = 0; i < p->agent_count; i++) {
        const struct gw_agent *a = &p->agents[i];
        if (!sl_str_eq_c(tenant, a->tenant))
            continue;
        if (sl_str_eq_c(id_or_name, a->id))
            return a;
        if (named == NULL && sl_str_eq_c(id_or_name, a->name))
            named = a;
    }
    return named;
}

struct gw_token *gw_people_token(struct gw_people *p, struct sl_str secret)
{
    unsigned char hash[32];
    struct gw_token *found = NULL;
    sl_sha256(secret, hash);
    for (size_t i = 0; i < p->token_count; i++) {
        struct gw_token *t = &p->tokens[i];
        if (sl_secret_eq(sl_str_n((const char *)hash, 32), sl_str_n((const char *)t->secret_hash, 32)))
            found = t;
    }
    return found;
}
