/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl poison: bad memory, as the pool knows it: listed, taken out of use, given back.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK_BYTES 4096ull

static const char usage[] =
	"usage: umbractl poison [--json] list MOUNT\n"
	"       umbractl poison [--json] add|clear|forget START[+LENGTH] MOUNT\n"
	"list: the ranges of the device that are out of use since their memory is bad.\n"
	"add: takes a range out of use by hand, readable or not. Files and metadata in it move; what cannot be read is lost, which\n"
	"`umbractl losses` tells.\n"
	"clear: what of a range is out of use is cleared by the device, and is used again if it can be read and written then.\n"
	"forget: the same without the device: for memory that is good after all.\n"
	"START and LENGTH in bytes, whole blocks of 4096, with K, M, G, T if you like; without LENGTH one block.\n"
	"For root and the user who mounted. Status 1 if something could not be taken out of use, or given back.\n";

enum what { WHAT_LIST, WHAT_ADD, WHAT_CLEAR, WHAT_FORGET, WHAT_COUNT };
static const char *const whats[WHAT_COUNT] = {
	[WHAT_LIST] = "list",
	[WHAT_ADD] = "add",
	[WHAT_CLEAR] = "clear",
	[WHAT_FORGET] = "forget",
};

/* ---- list ---- */

/* Runs of bad blocks in a range of the device. */
struct bad_runs {
	uint64_t start, limit;
	uint64_t off, end; /* run so far */
	int (*take)(void *arg, uint64_t off, uint64_t len);
	void *arg;
};

static int run_put(struct bad_runs *runs)
{
	uint64_t off = runs->off;

	runs->off = runs->end;
	return off == runs->end ? 0 : runs->take(runs->arg, off, runs->end - off);
}

static int owner_take(struct bad_runs *runs, const struct umbra_owner *owner)
{
	uint64_t off = owner->dev_off > runs->start ? owner->dev_off : runs->start;
	uint64_t end = owner->dev_off + owner->len;
	int rc = 0;

	if (end > runs->limit)
		end = runs->limit;
	if (owner->kind != UMBRA_OWNER_BAD || end <= off)
		return 0;
	if (off != runs->end) {
		rc = run_put(runs);
		runs->off = off;
	}
	runs->end = end;
	return rc;
}

/* 0, an errno, or what take returned. */
static int runs_find(struct bad_runs *runs, int fd)
{
	struct umbra_owners *page = calloc(1, sizeof(*page));
	int rc = page ? 0 : ENOMEM;

	while (rc == 0) {
		size_t at = 0;

		page->dev_off = runs->start;
		page->len = runs->limit - runs->start;
		if (ioctl(fd, UMBRA_IOC_OWNERS, page))
			rc = errno;
		if (rc || page->count == 0)
			break;
		for (uint32_t i = 0; i < page->count && at < sizeof(page->data) && rc == 0; i++) {
			const struct umbra_owner *owner = (const void *)(page->data + at);

			rc = owner_take(runs, owner);
			at += owner->record_size;
		}
	}
	free(page);
	return rc ? rc : run_put(runs);
}

struct bad_list {
	bool json, any;
	struct json_object *list;
};

static int list_take(void *arg, uint64_t off, uint64_t len)
{
	struct bad_list *bad = arg;
	struct json_object *o;

	if (bad->json) {
		o = json_object_new_object();
		json_object_object_add(o, "dev_off", json_u64(off));
		json_object_object_add(o, "len", json_u64(len));
		json_object_array_add(bad->list, o);
	} else {
		if (!bad->any)
			printf("%16s %16s\n", "DEVICE", "LENGTH");
		printf("%#16llx %16llu\n", (unsigned long long)off, (unsigned long long)len);
	}
	bad->any = true;
	return 0;
}

static int list(const struct ctl_args *args, int fd)
{
	struct bad_list bad = { .json = args->json, .list = json_object_new_array() };
	struct bad_runs runs = { .take = list_take, .arg = &bad };
	struct umbra_info info;
	int rc = ioctl(fd, UMBRA_IOC_INFO, &info) ? errno : 0;

	if (rc == 0) {
		runs.limit = info.size;
		rc = runs_find(&runs, fd);
	}
	if (rc == 0 && args->json)
		return ctl_print_json(bad.list);
	json_object_put(bad.list);
	return rc ? rc : ctl_finish();
}

/* ---- add ---- */

static bool range_parse(const char *text, uint64_t *off, uint64_t *len)
{
	char *copy = strdup(text), *plus = copy ? strchr(copy, '+') : NULL;
	bool ok = copy != NULL;

	if (plus)
		*plus++ = '\0';
	*len = BLOCK_BYTES;
	ok = ok && args_size(copy, off) && (!plus || (args_size(plus, len) && *len > 0));
	free(copy);
	return ok && *off % BLOCK_BYTES == 0 && *len % BLOCK_BYTES == 0;
}

static const char *add_error(uint32_t error)
{
	switch (error) {
	case EOPNOTSUPP:
		return "the superblock has its place";
	case EINPROGRESS:
		return "there is no space to move its files to; it will be when there is, or when they go";
	default:
		return strerror((int)error);
	}
}

/* Blocks beside each other that could not be done, for the same reason. */
struct refused {
	const char *mount;
	uint64_t off, len;
	uint32_t error;
};

static void refused_say(struct refused *r)
{
	if (r->len > BLOCK_BYTES)
		fprintf(stderr,
			"umbractl: %s: the blocks from %#llx to %#llx cannot be taken out of use: %s\n",
			r->mount, (unsigned long long)r->off, (unsigned long long)(r->off + r->len),
			add_error(r->error));
	else if (r->len > 0)
		fprintf(stderr, "umbractl: %s: the block at %#llx cannot be taken out of use: %s\n", r->mount,
			(unsigned long long)r->off, add_error(r->error));
	r->len = 0;
}

static void refused_add(struct refused *r, uint64_t off, uint32_t error)
{
	if (r->len > 0 && (off != r->off + r->len || error != r->error))
		refused_say(r);
	if (r->len == 0) {
		r->off = off;
		r->error = error;
	}
	r->len += BLOCK_BYTES;
}

/* As much of a range as one call does, and over the block that it has stopped at. */
static int part_add(int fd, uint64_t off, uint64_t len, uint64_t *done, struct refused *refused,
		    uint64_t *left)
{
	struct umbra_poison arg = { .op = UMBRA_POISON_ADD, .off = off };

	arg.len = len < UMBRA_POISON_MAX ? len : UMBRA_POISON_MAX;
	if (ioctl(fd, UMBRA_IOC_POISON, &arg))
		return errno;
	*done = arg.done;
	*left += arg.later;
	if (arg.later > 0)
		fprintf(stderr, "umbractl: %s: %u bytes from %#llx on cannot be taken out of use: %s\n",
			refused->mount, arg.later, (unsigned long long)off, add_error(EINPROGRESS));
	if (arg.error == 0 || arg.error == EINPROGRESS)
		return 0;
	refused_add(refused, off + arg.done, arg.error);
	*done += BLOCK_BYTES;
	*left += BLOCK_BYTES;
	return arg.error == EROFS ? -1 : 0;
}

static int add(const struct ctl_args *args, int fd, uint64_t off, uint64_t len)
{
	struct refused refused = { .mount = args->names[2] };
	uint64_t done = 0, left = 0;
	int rc = 0;

	while (done < len && rc == 0) {
		uint64_t part = 0;

		rc = part_add(fd, off + done, len - done, &part, &refused, &left);
		done += part;
	}
	refused_say(&refused);
	if (rc)
		return rc;
	if (args->json)
		printf("{ \"taken_out_bytes\": %llu }\n", (unsigned long long)(done - left));
	else
		printf("%llu bytes are out of use\n", (unsigned long long)(done - left));
	return ctl_finish() || left > 0 ? -1 : 0;
}

/* ---- clear, forget ---- */

struct clearing {
	int fd;
	uint32_t op;
	bool json, any, kept; /* kept: something stays out of use */
	uint64_t off, len;    /* run of blocks with the same result */
	unsigned result;
	struct json_object *list;
};

static const char *const results[] = {
	[UMBRA_POISON_FREED] = "in use again",
	[UMBRA_POISON_NOT_BAD] = "was not out of use",
	[UMBRA_POISON_IN_USE] = "stays: somebody still has it",
	[UMBRA_POISON_STILL_BAD] = "stays: cannot be read and written",
	[UMBRA_POISON_CANNOT_CLEAR] = "stays: there is no device that can clear it",
	[UMBRA_POISON_NOT_CLEARED] = "stays: the device did not clear it",
};
static const char *const result_names[] = {
	[UMBRA_POISON_FREED] = "freed",
	[UMBRA_POISON_NOT_BAD] = "not_bad",
	[UMBRA_POISON_IN_USE] = "in_use",
	[UMBRA_POISON_STILL_BAD] = "still_bad",
	[UMBRA_POISON_CANNOT_CLEAR] = "cannot_clear",
	[UMBRA_POISON_NOT_CLEARED] = "not_cleared",
};

static void result_put(struct clearing *c)
{
	struct json_object *o;

	if (c->len == 0)
		return;
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "dev_off", json_u64(c->off));
		json_object_object_add(o, "len", json_u64(c->len));
		json_object_object_add(o, "result", json_object_new_string(result_names[c->result]));
		json_object_array_add(c->list, o);
	} else {
		if (!c->any)
			printf("%16s %16s  %s\n", "DEVICE", "LENGTH", "NOW");
		printf("%#16llx %16llu  %s\n", (unsigned long long)c->off, (unsigned long long)c->len,
		       results[c->result]);
	}
	c->any = true;
	c->kept |= c->result != UMBRA_POISON_FREED && c->result != UMBRA_POISON_NOT_BAD;
	c->len = 0;
}

static void result_take(struct clearing *c, uint64_t off, unsigned result)
{
	if (off != c->off + c->len || result != c->result) {
		result_put(c);
		c->off = off;
		c->result = result;
	}
	c->len += BLOCK_BYTES;
}

static int clear_take(void *arg, uint64_t off, uint64_t len)
{
	struct clearing *c = arg;

	for (uint64_t done = 0; done < len;) {
		struct umbra_poison_clear call = { .op = c->op, .off = off + done };

		call.len = len - done < UMBRA_POISON_MAX ? len - done : UMBRA_POISON_MAX;
		if (ioctl(c->fd, UMBRA_IOC_POISON_CLEAR, &call))
			return errno;
		for (uint64_t i = 0; i < call.done / BLOCK_BYTES; i++) {
			unsigned result = call.result[i];

			if (result == 0 || result >= sizeof(results) / sizeof(results[0]))
				return EPROTO;
			result_take(c, call.off + i * BLOCK_BYTES, result);
		}
		done += call.done;
		if (call.error) {
			fprintf(stderr, "umbractl: the block at %#llx cannot be given back: %s\n",
				(unsigned long long)(off + done), strerror((int)call.error));
			return -1;
		}
	}
	return 0;
}

static int clear(const struct ctl_args *args, enum what what, int fd, uint64_t off, uint64_t len)
{
	struct clearing c = {
		.fd = fd,
		.op = what == WHAT_CLEAR ? UMBRA_POISON_CLEAR : UMBRA_POISON_FORGET,
		.json = args->json,
		.list = json_object_new_array(),
	};
	struct bad_runs runs = { .start = off, .limit = off + len, .take = clear_take, .arg = &c };
	int rc = runs_find(&runs, fd), printed = 0;

	result_put(&c);
	if (args->json && rc <= 0)
		printed = ctl_print_json(c.list);
	else
		json_object_put(c.list);
	if (rc == 0 && !c.any && !args->json)
		printf("nothing is out of use there\n");
	if (rc == 0 && (ctl_finish() || printed || c.kept))
		rc = -1;
	return rc;
}

/* ---- all ---- */

static enum what what_parse(const struct ctl_args *args)
{
	enum what what = WHAT_LIST;

	while (what < WHAT_COUNT && strcmp(args->names[0], whats[what]) != 0)
		what++;
	return args->names_count == (what == WHAT_LIST ? 2 : 3) ? what : WHAT_COUNT;
}

static int run(const struct ctl_args *args, enum what what, int fd, uint64_t off, uint64_t len)
{
	if (what == WHAT_LIST)
		return list(args, fd);
	return what == WHAT_ADD ? add(args, fd, off, len) : clear(args, what, fd, off, len);
}

/* That is all on the device. 0 or an errno. */
static int range_check(int fd, uint64_t off, uint64_t len)
{
	struct umbra_info info;

	if (ioctl(fd, UMBRA_IOC_INFO, &info))
		return errno;
	return off < info.size && len <= info.size - off ? 0 : EINVAL;
}

int ctl_poison(int argc, char **argv)
{
	struct ctl_args args = { .usage = usage, .min = 2, .max = 3 };
	int rc = ctl_parse(&args, argc, argv), fd;
	uint64_t off = 0, len = 0;
	const char *mount;
	enum what what;

	if (rc)
		return rc < 0 ? 0 : rc;
	what = what_parse(&args);
	if (what == WHAT_COUNT) {
		fprintf(stderr,
			"umbractl poison: must be 'list MOUNT' or 'add|clear|forget RANGE MOUNT' (try --help)\n");
		return STATUS_USAGE;
	}
	if (what != WHAT_LIST && !range_parse(args.names[1], &off, &len)) {
		fprintf(stderr,
			"umbractl poison: %s: must be START or START+LENGTH, whole blocks of 4096 bytes\n",
			args.names[1]);
		return STATUS_USAGE;
	}
	mount = args.names[args.names_count - 1];
	fd = ctl_open(mount, O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	rc = what == WHAT_LIST ? 0 : range_check(fd, off, len);
	if (rc == 0)
		rc = run(&args, what, fd, off, len);
	close(fd);
	if (rc == EPERM)
		return ctl_say(mount, "only root and the user who mounted it may do that");
	if (rc == EINVAL && what != WHAT_LIST)
		return ctl_say(mount, "the range leaves the device");
	return rc < 0 ? STATUS_FAILED : rc ? ctl_fail(mount, rc) : 0;
}
