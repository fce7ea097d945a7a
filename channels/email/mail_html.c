/* channels/email/mail_html.c - HTML to text through gumbo, in bounded memory. */
#include "channels/email/mail_html.h"

#include "channels/email/mail_text.h"

#include <gumbo.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <strings.h>

#define LINK_MAX_BYTES 512
#define ARENA_BLOCK    (256u << 10)

/* ---- memory for gumbo: given back as a whole, never over its bound ---- */

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(max_align_t) char bytes[];
};

struct arena {
    struct arena_block *last;
    size_t total;
    char *nodes; /* pieces of a node's size have a place of their own */
    size_t node_count;
    const char *newest; /* of these; what it is shows when the next one is asked for */
    const char *node;   /* the newest that is a node */
    size_t attributes;  /* since it */
    jmp_buf over;       /* gumbo does not look whether it got memory */
};

/* Not every piece of a node's size is a node: a string may be as long. Only what lies where such pieces lie is ever read. */
static bool is_piece(const struct arena *a, const char *p)
{
    const size_t at = (uintptr_t)p - (uintptr_t)a->nodes; /* wraps for what lies before */
    return p != NULL && at < a->node_count * sizeof(GumboNode) && at % sizeof(GumboNode) == 0;
}

/* A string has no byte 0 before its end, and so no such number where a node has its type. */
static bool is_node(const char *piece)
{
    unsigned type;
    memcpy(&type, piece + offsetof(GumboNode, type), sizeof type);
    return type <= GUMBO_NODE_TEMPLATE;
}

static const char *parent_of(const char *piece)
{
    const char *parent;
    memcpy(&parent, piece + offsetof(GumboNode, parent), sizeof parent);
    return parent;
}

/* gumbo compares each tag with all that are open and each attribute with all before it: a small body could keep a thread for
 * minutes. What it asks memory for tells how far it is: a node has its place in the tree by the time that another one is asked for, or
 * the one after that. */
static void check_depth(struct arena *a)
{
    unsigned depth = 0;
    if (a->newest != NULL && is_node(a->newest)) {
        a->node = a->newest;
        a->attributes = 0;
    }
    for (const char *up = a->node; is_piece(a, up); up = parent_of(up))
        if (++depth > EMAIL_HTML_DEPTH_MAX)
            longjmp(a->over, 1);
}

static void *arena_piece(struct arena *a)
{
    check_depth(a);
    if (a->nodes == NULL) {
        a->nodes = calloc(EMAIL_HTML_NODES_MAX, sizeof(GumboNode)); /* pages come as they are touched */
        if (a->nodes == NULL)
            longjmp(a->over, 1);
    }
    if (a->node_count == EMAIL_HTML_NODES_MAX)
        longjmp(a->over, 1);
    char *p = a->nodes + a->node_count++ * sizeof(GumboNode);
    a->newest = p;
    return p;
}

static void *arena_get(void *userdata, size_t n)
{
    struct arena *a = userdata;
    const size_t align = _Alignof(max_align_t);
    if (n == sizeof(GumboNode))
        return arena_piece(a);
    if (n == sizeof(GumboAttribute) && ++a->attributes > EMAIL_HTML_ATTRIBUTES_MAX)
        longjmp(a->over, 1);
    n = (n + align - 1) / align * align;
    if (n > EMAIL_HTML_ARENA_BYTES || a->total > EMAIL_HTML_ARENA_BYTES - n)
        longjmp(a->over, 1);
    struct arena_block *b = a->last;
    if (b == NULL || b->size - b->used < n) {
        const size_t size = n > ARENA_BLOCK ? n : ARENA_BLOCK;
        b = malloc(sizeof *b + size);
        if (b == NULL)
            longjmp(a->over, 1);
        *b = (struct arena_block){.next = a->last, .size = size};
        a->last = b;
    }
    void *p = b->bytes + b->used;
    b->used += n;
    a->total += n;
    return p;
}

static void arena_keep(void *userdata, void *p)
{
    (void)userdata;
    (void)p; /* goes with the rest */
}

static void arena_fini(struct arena *a)
{
    while (a->last != NULL) {
        struct arena_block *b = a->last;
        a->last = b->next;
        free(b);
    }
    free(a->nodes);
}

/* ---- writing lines ---- */

struct lines {
    struct sl_buf *buf;
    size_t start;    /* where we began to append */
    unsigned breaks; /* line ends that are due before the next word */
    bool is_space_due;
};

struct writer {
    struct lines full, visible;
    unsigned quotes, pre; /* elements we stand in */
    bool is_cut;          /* the rest is a quoted mail */
};

static void lines_flush(struct lines *l)
{
    if (l->buf->len > l->start) {
        for (unsigned i = 0; i < l->breaks; i++)
            sl_buf_char(l->buf, '\n');
        if (l->breaks == 0 && l->is_space_due)
            sl_buf_char(l->buf, ' ');
    }
    l->breaks = 0;
    l->is_space_due = false;
}

static void lines_text(struct lines *l, struct sl_str s, bool is_pre)
{
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        const bool is_nbsp = c == '\xC2' && i + 1 < s.len && s.ptr[i + 1] == '\xA0';
        if (is_pre && c == '\n') {
            l->breaks++;
            continue;
        }
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || is_nbsp) {
            l->is_space_due = true;
            i += is_nbsp;
            continue;
        }
        if (l->breaks > 0 || l->is_space_due)
            lines_flush(l);
        sl_buf_char(l->buf, c);
    }
}

static void lines_break(struct lines *l, unsigned count)
{
    if (l->breaks < count)
        l->breaks = count;
    l->is_space_due = false;
}

static bool is_quoted(const struct writer *w)
{
    return w->is_cut || w->quotes > 0;
}

static void write_text(struct writer *w, struct sl_str s)
{
    lines_text(&w->full, s, w->pre > 0);
    if (!is_quoted(w))
        lines_text(&w->visible, s, w->pre > 0);
}

static void write_break(struct writer *w, unsigned count)
{
    lines_break(&w->full, count);
    if (!is_quoted(w))
        lines_break(&w->visible, count);
}

/* ---- what elements mean ---- */

static struct sl_str attribute(const GumboNode *n, const char *name)
{
    const GumboAttribute *a = gumbo_get_attribute(&n->v.element.attributes, name);
    return a != NULL && a->value != NULL ? sl_str_c(a->value) : SL_STR_NONE;
}

static bool is_element(const GumboNode *n)
{
    return n->type == GUMBO_NODE_ELEMENT || n->type == GUMBO_NODE_TEMPLATE;
}

static bool is_left_out(const GumboNode *n)
{
    static const GumboTag tags[] = {GUMBO_TAG_SCRIPT, GUMBO_TAG_STYLE,    GUMBO_TAG_HEAD, GUMBO_TAG_TITLE,
                                    GUMBO_TAG_OBJECT, GUMBO_TAG_TEMPLATE, GUMBO_TAG_SVG,  GUMBO_TAG_SELECT};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
        if (n->v.element.tag == tags[i])
            return true;
    const struct sl_str style = attribute(n, "style");
    return email_has_nocase(style, "display:none") || email_has_nocase(style, "display: none");
}

static bool is_quote(const GumboNode *n)
{
    static const char *const classes[] = {"gmail_quote", "gmail_extra", "moz-cite-prefix", "yahoo_quoted",
                                          "qmbox",       "foxmail",     "protonmail_quote"};
    const struct sl_str class = attribute(n, "class"), id = attribute(n, "id");
    if (n->v.element.tag == GUMBO_TAG_BLOCKQUOTE)
        return email_eq_nocase(attribute(n, "type"), "cite") || email_eq_nocase(id, "isReplyContent") ||
               attribute(n, "cite").len > 0 || email_has_nocase(class, "gmail_quote");
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (email_has_nocase(class, classes[i]))
            return true;
    return email_eq_nocase(id, "isReplyContent");
}

/* From here on stands the mail that is answered, as sisters of this element. */
static bool is_cut_mark(const GumboNode *n)
{
    const struct sl_str id = attribute(n, "id");
    return email_eq_nocase(id, "divRplyFwdMsg") || email_eq_nocase(id, "appendonsend") ||
           email_eq_nocase(id, "mail-editor-reference-message-container") ||
           email_eq_nocase(id, "FMOriginalContent");
}

static unsigned breaks_of(GumboTag tag)
{
    static const GumboTag one[] = {GUMBO_TAG_DIV,     GUMBO_TAG_TR,     GUMBO_TAG_LI,      GUMBO_TAG_SECTION,
                                   GUMBO_TAG_ARTICLE, GUMBO_TAG_HEADER, GUMBO_TAG_FOOTER,  GUMBO_TAG_DT,
                                   GUMBO_TAG_DD,      GUMBO_TAG_CENTER, GUMBO_TAG_ADDRESS, GUMBO_TAG_FORM,
                                   GUMBO_TAG_CAPTION, GUMBO_TAG_HR};
    static const GumboTag two[] = {GUMBO_TAG_P,  GUMBO_TAG_H1, GUMBO_TAG_H2,         GUMBO_TAG_H3,
                                   GUMBO_TAG_H4, GUMBO_TAG_H5, GUMBO_TAG_H6,         GUMBO_TAG_UL,
                                   GUMBO_TAG_OL, GUMBO_TAG_DL, GUMBO_TAG_BLOCKQUOTE, GUMBO_TAG_TABLE,
                                   GUMBO_TAG_PRE};
    for (size_t i = 0; i < sizeof one / sizeof one[0]; i++)
        if (tag == one[i])
            return 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        if (tag == two[i])
            return 2;
    return 0;
}

/* false: its children are not visited. */
static bool on_open(struct writer *w, const GumboNode *n)
{
    const GumboTag tag = n->v.element.tag;
    if (is_left_out(n))
        return false;
    w->is_cut = w->is_cut || is_cut_mark(n);
    w->quotes += is_quote(n);
    if (tag == GUMBO_TAG_BR) { /* one line end more than is due, but not at the very start */
        w->full.breaks++;
        w->visible.breaks += !is_quoted(w);
    }
    const unsigned breaks = breaks_of(tag);
    if (breaks > 0)
        write_break(w, breaks);
    if (tag == GUMBO_TAG_LI)
        write_text(w, SL_STR("- "));
    else if (tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH)
        write_text(w, SL_STR(" "));
    else if (tag == GUMBO_TAG_IMG && attribute(n, "alt").len > 0)
        write_text(w, attribute(n, "alt"));
    w->pre += tag == GUMBO_TAG_PRE || tag == GUMBO_TAG_TEXTAREA;
    return true;
}

/* Where a link leads, unless its words say so. */
static void write_target(struct writer *w, const GumboNode *n)
{
    const struct sl_str href = email_trim(attribute(n, "href"));
    const GumboVector *children = &n->v.element.children;
    if (href.len > LINK_MAX_BYTES ||
        !(email_starts_nocase(href, "http://") || email_starts_nocase(href, "https://")))
        return;
    if (children->length == 1) {
        const GumboNode *only = children->data[0];
        if (only->type == GUMBO_NODE_TEXT && sl_str_eq(email_trim(sl_str_c(only->v.text.text)), href))
            return;
    }
    write_text(w, SL_STR(" ("));
    write_text(w, href);
    write_text(w, SL_STR(")"));
}

static void on_leave(struct writer *w, const GumboNode *n)
{
    const GumboTag tag = n->v.element.tag;
    if (tag == GUMBO_TAG_A)
        write_target(w, n);
    w->pre -= tag == GUMBO_TAG_PRE || tag == GUMBO_TAG_TEXTAREA;
    const unsigned breaks = breaks_of(tag);
    if (breaks > 0)
        write_break(w, breaks);
    w->quotes -= is_quote(n);
}

static const GumboNode *child_of(const GumboNode *n, size_t i)
{
    const GumboVector *children = &n->v.element.children;
    return i < children->length ? children->data[i] : NULL;
}

/* In document order, without recursion: an HTML body may be nested as deep as it is long. */
static void walk(struct writer *w, const GumboNode *root)
{
    const GumboNode *n = root;
    while (n != NULL) {
        if (n->type == GUMBO_NODE_TEXT || n->type == GUMBO_NODE_WHITESPACE || n->type == GUMBO_NODE_CDATA)
            write_text(w, sl_str_c(n->v.text.text));
        if (is_element(n) && on_open(w, n)) {
            const GumboNode *first = child_of(n, 0);
            if (first != NULL) {
                n = first;
                continue;
            }
            on_leave(w, n);
        }
        while (n != root) { /* to the next sister, or up */
            const GumboNode *next = child_of(n->parent, n->index_within_parent + 1);
            if (next != NULL) {
                n = next;
                break;
            }
            n = n->parent;
            on_leave(w, n);
        }
        if (n == root)
            return;
    }
}

static bool by_gumbo(struct arena *a, struct writer *w, struct sl_str html)
{
    GumboOptions options = kGumboDefaultOptions;
    options.allocator = arena_get;
    options.deallocator = arena_keep;
    options.userdata = a;
    options.max_errors = 0;
    if (setjmp(a->over) != 0)
        return false;
    const GumboOutput *out = gumbo_parse_with_options(&options, html.ptr, html.len);
    walk(w, out->root);
    return true;
}

/* Tags to blanks: for what gumbo cannot take. Character references stay as they are. */
static void by_hand(struct writer *w, struct sl_str html)
{
    while (html.len > 0) {
        const char *open = memchr(html.ptr, '<', html.len);
        const size_t n = open != NULL ? (size_t)(open - html.ptr) : html.len;
        write_text(w, sl_str_n(html.ptr, n));
        html = sl_str_n(html.ptr + n, html.len - n);
        const char *close = html.len > 0 ? memchr(html.ptr, '>', html.len) : NULL;
        const size_t tag = close != NULL ? (size_t)(close - html.ptr) + 1 : html.len;
        if (email_starts_nocase(html, "<br") || email_starts_nocase(html, "</p") ||
            email_starts_nocase(html, "</div"))
            write_break(w, 1);
        else
            write_text(w, SL_STR(" "));
        html = sl_str_n(html.ptr + tag, html.len - tag);
    }
}

void email_html_text(struct sl_str html, struct sl_buf *full, struct sl_buf *visible)
{
    struct arena a = {.last = NULL};
    struct writer *w = sl_alloc(sizeof *w); /* not on the stack: setjmp */
    html = email_utf8_head(html, EMAIL_HTML_MAX_BYTES);
    w->full = (struct lines){.buf = full, .start = full->len};
    w->visible = (struct lines){.buf = visible, .start = visible->len};
    if (!by_gumbo(&a, w, html)) {
        full->len = w->full.start;
        visible->len = w->visible.start;
        *w = (struct writer){.full = {.buf = full, .start = full->len},
                             .visible = {.buf = visible, .start = visible->len}};
        by_hand(w, html);
    }
    arena_fini(&a);
    free(w);
}
