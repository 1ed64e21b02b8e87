/* The limit: what this machine can do with the work that a durable publish cannot do without.
 *
 *     limit PORT FOLDER
 *
 * One thread receives SEND frames (epoll), checks their crc32c and copies each entry once, behind a
 * row of 80 bytes, into a slab that is journal buffer and write cache in one. One thread writes what
 * has gathered to a preallocated, recycled journal and syncs it; then the receipts leave, one write
 * per connection. At half a write cache, a third thread writes the entries sorted by ledger into an
 * entry log, syncs that, and gives the slabs back. So the bytes that reach the disk are those of the
 * broker (docs/architecture.md), and nothing else is done: no cursor, no subscription, no policy, no
 * recovery. It answers just what the load generator asks before it publishes. Never for users.
 *
 *     journal record   row (80 bytes) | metadata size, metadata, payload, as received | up to 8 bytes
 *     frame            total u32 | size u32 | command | 0x0e01 u16 | crc32c u32 | the entry
 *
 * Source: the Pulsar binary protocol specification; field numbers from PulsarApi.proto.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define FRAME_MAX (5 * 1024 * 1024 + 16 * 1024)
#define RECEIVE (1 << 20)
#define BUFFER (FRAME_MAX + RECEIVE)
#define SLAB (8 << 20)
#define SLABS 16     /* together a write cache of 128 MiB */
#define FLUSHED 8    /* slabs that make up a flush: half of it */
#define JOURNAL_FILE (64 << 20)
#define JOURNAL_FILES 4
#define ROW 80
#define CONNECTIONS 2048
#define PIECES 64    /* runs of bytes in one commit */

static void die(const char *what) { perror(what); exit(1); }
static void *checked(void *memory) { if (!memory) die("memory"); return memory; }

/* --- crc32c ----------------------------------------------------------------------------------- */

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c(const uint8_t *at, size_t size) {
    uint64_t crc = 0xffffffff;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        crc = __builtin_ia32_crc32di(crc, word);
    }
    for (; size; at++, size--) crc = __builtin_ia32_crc32qi((uint32_t)crc, *at);
    return ~(uint32_t)crc;
}
#else
static uint32_t crc32c(const uint8_t *at, size_t size) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0x82f63b78 : value >> 1;
            table[i] = value;
        }
    uint32_t crc = 0xffffffff;
    for (; size; at++, size--) crc = crc >> 8 ^ table[(crc ^ *at) & 255];
    return ~crc;
}
#endif

/* --- protobuf, as much as is needed ------------------------------------------------------------ */

static uint32_t get32(const uint8_t *at) { uint32_t v; memcpy(&v, at, 4); return ntohl(v); }
static void put32(uint8_t *at, uint32_t v) { v = htonl(v); memcpy(at, &v, 4); }

static uint64_t varint(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) break;
    }
    return value;
}

static uint8_t *put_varint(uint8_t *at, uint64_t value) {
    for (; value >= 128; value >>= 7) *at++ = value | 128;
    *at++ = value;
    return at;
}

typedef struct { uint64_t number[8]; const uint8_t *text; size_t text_size; } Fields;

/* Take the first seven fields of a message: numbers, and the text in field 1. */
static Fields fields_of(const uint8_t *at, const uint8_t *end) {
    Fields found = {0};
    while (at < end) {
        uint64_t key = varint(&at, end), field = key >> 3;
        if ((key & 7) == 0) {
            uint64_t value = varint(&at, end);
            if (field < 8) found.number[field] = value;
        } else if ((key & 7) == 2) {
            size_t size = varint(&at, end);
            if (size > (size_t)(end - at)) break;
            if (field == 1) { found.text = at; found.text_size = size; }
            at += size;
        } else break;
    }
    return found;
}

/* --- connections --------------------------------------------------------------------------------- */

typedef struct {
    int fd, waiting; /* waiting: it has frames for which there is no room */
    uint32_t life;   /* counts the connections that had this number */
    uint8_t *in, *out;
    size_t filled, unsent, room;
    uint32_t *ledger_of;
    size_t producers;
} Connection;

static Connection connections[CONNECTIONS];
static int poller, port;
static uint64_t *entries_of; /* ledger -> next entry */
static char (*topics)[256];
static uint32_t ledgers, ledgers_room;

static void close_connection(Connection *c) {
    close(c->fd);
    free(c->in); free(c->out); free(c->ledger_of);
    uint32_t life = c->life + 1;
    memset(c, 0, sizeof *c);
    c->fd = -1;
    c->life = life;
}

static void wish(Connection *c) {
    struct epoll_event event = {.events = (c->waiting ? 0 : EPOLLIN) | (c->unsent ? EPOLLOUT : 0),
                                .data.u32 = c - connections};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static uint8_t *room_for(Connection *c, size_t size) {
    if (c->unsent + size > c->room) {
        c->room = (c->unsent + size) * 2;
        c->out = checked(realloc(c->out, c->room));
    }
    return c->out + c->unsent;
}

static void flush_out(Connection *c) {
    size_t sent = 0;
    while (sent < c->unsent) {
        ssize_t n = send(c->fd, c->out + sent, c->unsent - sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) break;
            c->unsent = sent = 0; /* it has gone; the next read says so */
            break;
        }
        sent += n;
    }
    memmove(c->out, c->out + sent, c->unsent - sent);
    int before = sent == c->unsent;
    c->unsent -= sent;
    if (!before || c->waiting) wish(c);
}

/* Answer with a command of this type, whose field has the type's number; fits in 127 bytes. */
static void answer(Connection *c, int type, const uint8_t *body, size_t size) {
    uint8_t *start = room_for(c, size + 32), *at = start + 8;
    *at++ = 8; at = put_varint(at, type);
    at = put_varint(at, (uint64_t)type << 3 | 2);
    at = put_varint(at, size);
    memcpy(at, body, size); at += size;
    put32(start, at - start - 4); put32(start + 4, at - start - 8);
    c->unsent += at - start;
}

static uint32_t ledger_named(const uint8_t *name, size_t size) {
    if (size > 255) size = 255;
    for (uint32_t i = ledgers; i-- > 0 && ledgers - i < 4096;) /* recent ones; else it is new */
        if (!memcmp(topics[i], name, size) && !topics[i][size]) return i;
    if (ledgers == ledgers_room) {
        ledgers_room = ledgers_room ? ledgers_room * 2 : 1024;
        topics = checked(realloc(topics, ledgers_room * sizeof *topics));
        entries_of = checked(realloc(entries_of, ledgers_room * sizeof *entries_of));
    }
    memset(topics[ledgers], 0, sizeof *topics);
    memcpy(topics[ledgers], name, size);
    entries_of[ledgers] = 0;
    return ledgers++;
}

static void command(Connection *c, const uint8_t *at, const uint8_t *end) {
    varint(&at, end);
    uint64_t type = varint(&at, end);
    varint(&at, end);
    size_t size = varint(&at, end);
    if (size > (size_t)(end - at)) return;
    Fields f = fields_of(at, at + size);
    uint8_t body[96], *p = body;
    switch (type) {
    case 2: /* CONNECT */
        memcpy(p, "\x0a\x05limit\x10\x13", 9);
        answer(c, 3, body, 9);
        break;
    case 5: { /* PRODUCER */
        size_t id = f.number[2];
        if (id > 1000000) break;
        if (id >= c->producers) {
            size_t more = id * 2 + 16;
            c->ledger_of = checked(realloc(c->ledger_of, more * sizeof *c->ledger_of));
            memset(c->ledger_of + c->producers, 0, (more - c->producers) * sizeof *c->ledger_of);
            c->producers = more;
        }
        c->ledger_of[id] = ledger_named(f.text, f.text_size);
        *p++ = 8; p = put_varint(p, f.number[3]);
        memcpy(p, "\x12\x01p", 3); p += 3;
        answer(c, 17, body, p - body);
        break;
    }
    case 18: answer(c, 19, body, 0); break; /* PING */
    case 21: /* PARTITIONED_METADATA: none */
        *p++ = 8; *p++ = 0; *p++ = 16; p = put_varint(p, f.number[2]); *p++ = 24; *p++ = 0;
        answer(c, 22, body, p - body);
        break;
    case 23: /* LOOKUP: here */
        *p++ = 10;
        *p = sprintf((char *)p + 1, "pulsar://127.0.0.1:%d", port); p += *p + 1;
        *p++ = 24; *p++ = 1; *p++ = 32; p = put_varint(p, f.number[2]); *p++ = 40; *p++ = 1;
        answer(c, 24, body, p - body);
        break;
    }
    flush_out(c);
}

/* --- slabs, commits, receipts --------------------------------------------------------------------- */

typedef struct { uint32_t connection, life, ledger; uint64_t producer, sequence, entry; } Receipt;
typedef struct { uint8_t *data; size_t used, taken; } Slab; /* taken: handed to the journal */

static Slab slabs[SLABS];
static uint64_t filling, taking;              /* slabs, counted from the start */
static _Atomic uint64_t durable, flushed;     /* slabs below are durable, and free again */
static Receipt *receipts;
static size_t gathered, committing, receipts_room;
static int done_event, in_flight;

static struct iovec commit_pieces[PIECES];
static int commit_count;
static uint64_t commit_slab;                  /* slabs below are whole once this commit is durable */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t journal_wanted = PTHREAD_COND_INITIALIZER, flush_wanted = PTHREAD_COND_INITIALIZER;
static int journal_has_work;
static const char *folder;

/* Return whether there was room for the entry. */
static int append(Connection *c, const uint8_t *entry, size_t size, uint32_t checksum, Fields *f) {
    size_t needed = ROW + ((size + 7) & ~(size_t)7);
    Slab *slab = &slabs[filling % SLABS];
    if (slab->used + needed > SLAB) {
        if (filling + 1 - flushed >= SLABS) return 0;
        slab = &slabs[++filling % SLABS];
        slab->used = slab->taken = 0;
    }
    uint32_t ledger = c->ledger_of[f->number[1]];
    uint8_t *row = slab->data + slab->used;
    uint32_t words[8] = {0, size, checksum, 1, ledger, 0, f->number[1], 0};
    uint64_t longs[6] = {f->number[2], f->number[2], entries_of[ledger]};
    memcpy(row, words, 32);
    memcpy(row + 32, longs, 48);
    memcpy(row + ROW, entry, size);
    memset(row + ROW + size, 0, needed - ROW - size);
    slab->used += needed;
    if (gathered == receipts_room) {
        receipts_room = receipts_room ? receipts_room * 2 : 4096;
        receipts = checked(realloc(receipts, receipts_room * sizeof *receipts));
    }
    receipts[gathered++] = (Receipt){c - connections, c->life, ledger, f->number[1], f->number[2],
                                     entries_of[ledger]++};
    return 1;
}

static void begin_commit(void) {
    if (in_flight || gathered == committing) return;
    commit_count = 0;
    for (;;) {
        Slab *slab = &slabs[taking % SLABS];
        if (slab->used > slab->taken) {
            commit_pieces[commit_count++] =
                (struct iovec){slab->data + slab->taken, slab->used - slab->taken};
            slab->taken = slab->used;
        }
        if (taking == filling) break;
        taking++;
    }
    committing = gathered;
    in_flight = 1;
    pthread_mutex_lock(&lock);
    commit_slab = taking;
    journal_has_work = 1;
    pthread_cond_signal(&journal_wanted);
    pthread_mutex_unlock(&lock);
}

static void finish_commit(void) {
    static uint32_t touched[CONNECTIONS];
    size_t count = 0;
    for (size_t i = 0; i < committing; i++) {
        Receipt *r = &receipts[i];
        Connection *c = &connections[r->connection];
        if (c->fd < 0 || c->life != r->life) continue;
        if (!c->unsent) touched[count++] = r->connection;
        uint8_t id[32], *q = id;
        *q++ = 8; q = put_varint(q, r->ledger); *q++ = 16; q = put_varint(q, r->entry);
        uint8_t body[80], *p = body;
        *p++ = 8; p = put_varint(p, r->producer); *p++ = 16; p = put_varint(p, r->sequence);
        *p++ = 26; *p++ = q - id; memcpy(p, id, q - id); p += q - id;
        answer(c, 7, body, p - body);
    }
    memmove(receipts, receipts + committing, (gathered - committing) * sizeof *receipts);
    gathered -= committing;
    committing = 0;
    in_flight = 0;
    begin_commit(); /* the next sync runs while these receipts leave */
    for (size_t i = 0; i < count; i++) {
        Connection *c = &connections[touched[i]];
        if (c->fd >= 0) flush_out(c);
    }
}

static void write_all(int fd, struct iovec *pieces, int count, off_t at) {
    while (count) {
        ssize_t n = pwritev(fd, pieces, count, at);
        if (n < 0) die("write");
        at += n;
        while (count && (size_t)n >= pieces->iov_len) n -= pieces->iov_len, pieces++, count--;
        if (count) { pieces->iov_base = (char *)pieces->iov_base + n; pieces->iov_len -= n; }
    }
}

static void *journal_thread(void *unused) {
    int files[JOURNAL_FILES], current = 0;
    off_t at = 0;
    char path[4096];
    for (int i = 0; i < JOURNAL_FILES; i++) {
        snprintf(path, sizeof path, "%s/%d.journal", folder, i);
        if ((files[i] = open(path, O_RDWR | O_CREAT, 0644)) < 0) die(path);
        if (posix_fallocate(files[i], 0, JOURNAL_FILE) || fsync(files[i])) die(path);
    }
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!journal_has_work) pthread_cond_wait(&journal_wanted, &lock);
        journal_has_work = 0;
        uint64_t whole = commit_slab;
        pthread_mutex_unlock(&lock);
        off_t size = 0;
        for (int i = 0; i < commit_count; i++) size += commit_pieces[i].iov_len;
        if (at + size > JOURNAL_FILE) {
            /* What the next file holds was flushed: slabs are not reused before that, and four
               files hold twice what the slabs do. A commit may be longer than what was reserved. */
            current = (current + 1) % JOURNAL_FILES;
            at = 0;
        }
        write_all(files[current], commit_pieces, commit_count, at);
        if (fdatasync(files[current])) die("sync");
        at += size;
        pthread_mutex_lock(&lock);
        durable = whole;
        if (durable - flushed >= FLUSHED) pthread_cond_signal(&flush_wanted);
        pthread_mutex_unlock(&lock);
        eventfd_write(done_event, 1);
    }
    return unused;
}

/* --- entry logs ------------------------------------------------------------------------------------ */

typedef struct { uint32_t ledger, size; uint64_t entry; uint8_t *at; } Place;

static int by_ledger(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->ledger != y->ledger) return x->ledger < y->ledger ? -1 : 1;
    return x->entry < y->entry ? -1 : x->entry > y->entry;
}

static void write_entry_log(uint64_t first, uint64_t last, int number) {
    static Place *places;
    static size_t room;
    size_t count = 0;
    int sorted = 1;
    for (uint64_t s = first; s < last; s++) {
        Slab *slab = &slabs[s % SLABS];
        for (size_t at = 0; at < slab->used;) {
            uint32_t words[8];
            uint64_t entry;
            memcpy(words, slab->data + at, 32);
            memcpy(&entry, slab->data + at + 48, 8);
            if (count == room) {
                room = room ? room * 2 : 65536;
                places = checked(realloc(places, room * sizeof *places));
            }
            uint32_t size = ROW + ((words[1] + 7) & ~7u);
            places[count] = (Place){words[4], size, entry, slab->data + at};
            if (count && by_ledger(&places[count - 1], &places[count]) > 0) sorted = 0;
            count++;
            at += size;
        }
    }
    if (!sorted) qsort(places, count, sizeof *places, by_ledger);
    char path[4096];
    snprintf(path, sizeof path, "%s/%d.log", folder, number % 8); /* older ones are never read */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) die(path);
    static struct iovec pieces[1024];
    off_t at = 0;
    for (size_t i = 0; i < count;) {
        int n = 0;
        off_t size = 0;
        for (; i < count; i++) {
            struct iovec *before = n ? &pieces[n - 1] : NULL;
            size += places[i].size;
            if (before && (uint8_t *)before->iov_base + before->iov_len == places[i].at)
                before->iov_len += places[i].size;
            else if (n < 1024) pieces[n++] = (struct iovec){places[i].at, places[i].size};
            else { size -= places[i].size; break; }
            if (size > 4 << 20) { i++; break; }
        }
        write_all(fd, pieces, n, at);
        at += size;
    }
    /* The index: where each entry lies, 16 bytes. */
    uint64_t *index = checked(malloc(count * 16 + 16)), place = 0;
    for (size_t i = 0; i < count; i++) {
        index[2 * i] = (uint64_t)places[i].ledger << 32 | (uint32_t)places[i].entry;
        index[2 * i + 1] = place;
        place += places[i].size;
    }
    write_all(fd, &(struct iovec){index, count * 16}, 1, at);
    free(index);
    if (fdatasync(fd)) die("sync");
    close(fd);
}

static void *flush_thread(void *unused) {
    for (int number = 0;; number++) {
        pthread_mutex_lock(&lock);
        while (durable - flushed < FLUSHED) pthread_cond_wait(&flush_wanted, &lock);
        uint64_t first = flushed, last = durable;
        pthread_mutex_unlock(&lock);
        write_entry_log(first, last, number);
        flushed = last;
        eventfd_write(done_event, 1ull << 32); /* there is room again */
    }
    return unused;
}

/* --- the loop ---------------------------------------------------------------------------------------- */

/* Take all whole frames; return 0 if the connection cannot go on. */
static int take(Connection *c) {
    size_t at = 0;
    c->waiting = 0;
    while (c->filled - at >= 8) {
        uint32_t total = get32(c->in + at), size = get32(c->in + at + 4);
        if (total > FRAME_MAX || size + 4 > total) return 0;
        if (c->filled - at < total + 4) break;
        const uint8_t *start = c->in + at + 8, *end = c->in + at + 4 + total;
        if (start[1] == 6 && end - start > (ptrdiff_t)size + 6) { /* SEND */
            const uint8_t *p = start + 3, *entry = start + size + 6;
            varint(&p, start + size);
            Fields f = fields_of(p, start + size);
            uint32_t checksum = get32(start + size + 2);
            if (f.number[1] >= c->producers) return 0;
            if (checksum != crc32c(entry, end - entry)) return 0;
            if (!append(c, entry, end - entry, checksum, &f)) { c->waiting = 1; break; }
        } else command(c, start, start + size);
        at += total + 4;
    }
    memmove(c->in, c->in + at, c->filled - at);
    c->filled -= at;
    return 1;
}

static void receive(Connection *c) {
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->filled, BUFFER - c->filled < RECEIVE ? BUFFER - c->filled : RECEIVE, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { close_connection(c); return; }
        c->filled += n;
        if (!take(c)) { close_connection(c); return; }
        if (c->waiting) { wish(c); return; }
        if (n < RECEIVE) return;
    }
}

static void accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), one = 1;
    if (fd < 0) return;
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        Connection *c = &connections[i];
        if (c->fd >= 0) continue;
        c->fd = fd;
        c->in = checked(malloc(BUFFER));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) die("epoll");
        return;
    }
    close(fd);
}

int main(int count, char **words) {
    if (count != 3) { fprintf(stderr, "limit PORT FOLDER\n"); return 2; }
    port = atoi(words[1]);
    folder = words[2];
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < CONNECTIONS; i++) connections[i].fd = -1;
    for (int i = 0; i < SLABS; i++) {
        slabs[i].data = mmap(NULL, SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (slabs[i].data == MAP_FAILED) die("memory");
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    done_event = eventfd(0, EFD_NONBLOCK);
    poller = epoll_create1(0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, journal_thread, NULL)) die("thread");
    if (pthread_create(&thread, NULL, flush_thread, NULL)) die("thread");
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1024)) die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = CONNECTIONS};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.u32 = CONNECTIONS + 1;
    epoll_ctl(poller, EPOLL_CTL_ADD, done_event, &event);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            uint32_t which = events[i].data.u32;
            if (which == CONNECTIONS) accept_one(listener);
            else if (which == CONNECTIONS + 1) {
                eventfd_t what = 0;
                eventfd_read(done_event, &what);
                if (what & 0xffffffff) finish_commit();
                if (what >> 32)
                    for (Connection *c = connections; c < connections + CONNECTIONS; c++)
                        if (c->fd >= 0 && c->waiting) {
                            if (!take(c)) close_connection(c);
                            else if (!c->waiting) wish(c);
                        }
            } else {
                Connection *c = &connections[which];
                if (c->fd >= 0 && events[i].events & EPOLLOUT) { flush_out(c); if (!c->unsent) wish(c); }
                if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
            }
        }
        begin_commit();
    }
}
