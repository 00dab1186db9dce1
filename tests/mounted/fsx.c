/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random operations on two files against their content in memory: read, write, O_DIRECT, mapped
 * loads and stores, truncate, fallocate in four modes, copy_file_range between and within the two,
 * fsync, dropped caches, reopening. The last operations are printed when something is wrong.
 */
#define _GNU_SOURCE
#include "files.h"

#include <sys/mman.h>

enum { FILES = 2, LOG_LINES = 24, BLOCK = 4096 };

enum op {
	OP_WRITE,
	OP_READ,
	OP_DIRECT_WRITE,
	OP_DIRECT_READ,
	OP_MAP_STORE,
	OP_MAP_LOAD,
	OP_TRUNCATE,
	OP_PUNCH,
	OP_ZERO,
	OP_ALLOCATE,
	OP_KEEP_SIZE,
	OP_COPY,
	OP_FSYNC,
	OP_DROP,
	OP_REOPEN,
	OP_APPEND,
	OP_UNMAP,
	OP_SEEK,
	OP_COUNT
};

static const char *const op_name[OP_COUNT] = {
	"write",    "read",  "direct write", "direct read", "map store", "map load",
	"truncate", "punch", "zero",         "allocate",    "keep size", "copy",
	"fsync",    "drop",  "reopen",       "append",      "unmap",     "seek",
};

/* How likely each operation is, in shares. */
struct mix {
	size_t size_max;
	size_t len_max;
	unsigned share[OP_COUNT];
};

static const struct mix mix_all = { 1 << 20,
				    100000,
				    { 10, 10, 3, 3, 10, 6, 5, 4, 4, 3, 2, 10, 2, 2, 2, 3, 2, 2 } };
static const struct mix mix_small = { 3 * BLOCK,
				      2 * BLOCK,
				      { 10, 6, 2, 2, 8, 4, 10, 4, 4, 3, 2, 10, 1, 2, 2, 4, 2, 2 } };
static const struct mix mix_map = { 256 << 10,
				    20000,
				    { 3, 3, 1, 1, 30, 20, 6, 5, 4, 2, 1, 8, 2, 3, 1, 1, 3, 0 } };
static const struct mix mix_clone = { 512 << 10,
				      300000,
				      { 6, 4, 1, 1, 8, 4, 4, 4, 2, 2, 1, 30, 2, 2, 1, 1, 1, 1 } };

static const struct mix *mix;
static struct rnd rnd;

struct file {
	char name[8];
	int fd;
	int direct_fd; /* -1: there is no O_DIRECT here */
	unsigned char *map;
	unsigned char *want;
	size_t size;
};

static struct file files[FILES];
static unsigned char *scratch;
static char log_line[LOG_LINES][128];
static unsigned long op_index;

static void file_start(struct file *f)
{
	f->fd = file_open(f->name, O_RDWR | O_CREAT);
	f->direct_fd = open(f->name, O_RDWR | O_DIRECT);
	f->map = MAP_FAILED;
}

static void file_unmap(struct file *f)
{
	if (f->map != MAP_FAILED)
		OK(munmap(f->map, mix->size_max));
	f->map = MAP_FAILED;
}

static void file_stop(struct file *f)
{
	file_unmap(f);
	OK(close(f->fd));
	if (f->direct_fd != -1)
		OK(close(f->direct_fd));
}

static bool file_map(struct file *f)
{
	if (f->map == MAP_FAILED)
		f->map = mmap(NULL, mix->size_max, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
	return f->map != MAP_FAILED;
}

/* The model after a write or copy that ends at end. */
static void size_grow(struct file *f, size_t end)
{
	if (end > f->size)
		f->size = end;
}

static void file_verify(struct file *f)
{
	EQ(f->size, fd_stat(f->fd).st_size);
	EQ(f->size, pread(f->fd, scratch, mix->size_max, 0));
	MEMEQ(f->want, scratch, f->size);
}

static void op_write(struct file *f, enum op op, size_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		scratch[i] = (unsigned char)(op_index + i * 7);
	if (op == OP_DIRECT_WRITE && f->direct_fd != -1) {
		EQ(len, pwrite(f->direct_fd, scratch, len, (off_t)at));
	} else if (op == OP_APPEND) {
		int fd = file_open(f->name, O_WRONLY | O_APPEND);

		EQ(len, write(fd, scratch, len));
		OK(close(fd));
	} else {
		EQ(len, pwrite(f->fd, scratch, len, (off_t)at));
	}
	memcpy(f->want + at, scratch, len);
	size_grow(f, at + len);
}

static void op_read(struct file *f, enum op op, size_t at, size_t len)
{
	size_t want = at >= f->size ? 0 : len < f->size - at ? len : f->size - at;
	int fd = op == OP_DIRECT_READ && f->direct_fd != -1 ? f->direct_fd : f->fd;

	/* xfs fails a direct read that meets its own delayed allocation with EIO. */
	if (op == OP_DIRECT_READ && check_fs_is("xfs"))
		OK(fsync(f->fd));
	EQ(want, OK(pread(fd, scratch, len, (off_t)at)));
	MEMEQ(f->want + at, scratch, want);
}

static void op_map(struct file *f, enum op op, size_t at, size_t len)
{
	if (f->size == 0 || !file_map(f))
		return;
	at %= f->size;
	len = len < f->size - at ? len : f->size - at;
	if (op == OP_MAP_LOAD) {
		MEMEQ(f->want + at, f->map + at, len);
		return;
	}
	for (size_t i = 0; i < len; i++)
		f->want[at + i] = f->map[at + i] = (unsigned char)(op_index * 3 + i);
}

static void op_fallocate(struct file *f, enum op op, size_t at, size_t len)
{
	static const int modes[] = {
		[OP_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		[OP_ZERO] = FALLOC_FL_ZERO_RANGE,
		[OP_ALLOCATE] = 0,
		[OP_KEEP_SIZE] = FALLOC_FL_KEEP_SIZE,
	};

	if (fallocate(f->fd, modes[op], (off_t)at, (off_t)len) == -1) {
		if (errno != EOPNOTSUPP)
			OK(-1);
		return;
	}
	if (op == OP_PUNCH || op == OP_ZERO)
		memset(f->want + at, 0, len);
	if (op == OP_ZERO || op == OP_ALLOCATE)
		size_grow(f, at + len);
}

static void op_copy(struct file *src, struct file *dst, size_t from, size_t to, size_t len)
{
	off_t in = (off_t)from;
	off_t out = (off_t)to;

	if (src->size == 0)
		return;
	len = len < src->size - from ? len : src->size - from;
	if (src == dst && from < to + len && to < from + len) {
		if (len)
			ERR(EINVAL, copy_file_range(src->fd, &in, dst->fd, &out, len, 0));
		return;
	}
	for (size_t left = len; left > 0;) {
		ssize_t n = OK(copy_file_range(src->fd, &in, dst->fd, &out, left, 0));

		if (n <= 0) {
			TRUE(n > 0);
			return;
		}
		left -= (size_t)n;
	}
	memcpy(dst->want + to, src->want + from, len);
	size_grow(dst, len ? to + len : 0);
}

/* Nothing that is not zero may be inside a hole. */
static void op_seek(struct file *f)
{
	off_t at = 0;
	off_t data;

	while (at < (off_t)f->size) {
		data = lseek(f->fd, at, SEEK_DATA);
		if (data == -1)
			data = (off_t)f->size;
		for (off_t i = at; i < data; i++) {
			if (f->want[i] && !WRONG("data inside a hole"))
				return;
		}
		if (data == (off_t)f->size)
			break;
		at = (off_t)OK(lseek(f->fd, data, SEEK_HOLE));
		if (!TRUE(at > data))
			return;
	}
}

static void op_other(struct file *f, enum op op)
{
	switch (op) {
	case OP_FSYNC:
		OK(op_index & 1 ? fsync(f->fd) : fdatasync(f->fd));
		break;
	case OP_DROP:
		OK(fsync(f->fd));
		EQ(0, posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED));
		file_verify(f);
		break;
	case OP_REOPEN:
		file_stop(f);
		file_start(f);
		file_verify(f);
		break;
	case OP_UNMAP:
		file_unmap(f);
		break;
	default:
		op_seek(f);
		break;
	}
}

static void op_run(enum op op)
{
	struct file *f = &files[rnd_below(&rnd, FILES)];
	struct file *g = &files[rnd_below(&rnd, FILES)];
	bool aligned = op == OP_DIRECT_READ || op == OP_DIRECT_WRITE || rnd_below(&rnd, 2);
	size_t at = rnd_below(&rnd, mix->size_max);
	size_t to = rnd_below(&rnd, mix->size_max);
	size_t len = 1 + rnd_below(&rnd, mix->len_max);

	if (aligned) {
		at &= ~(size_t)(BLOCK - 1);
		to &= ~(size_t)(BLOCK - 1);
		len = (len + BLOCK - 1) & ~(size_t)(BLOCK - 1);
	}
	if (op == OP_APPEND)
		at = f->size;
	if (op == OP_COPY)
		at = f->size ? at % f->size & (aligned ? ~(size_t)(BLOCK - 1) : ~(size_t)0) : 0;
	len = len < mix->size_max - at ? len : mix->size_max - at;
	if (op == OP_COPY)
		len = len < mix->size_max - to ? len : mix->size_max - to;
	snprintf(log_line[op_index % LOG_LINES], sizeof(log_line[0]),
		 "%lu: %s %s at %zu to %s %zu, %zu bytes (sizes %zu, %zu)", op_index, op_name[op], f->name,
		 at, g->name, to, len, files[0].size, files[1].size);
	if (op == OP_WRITE || op == OP_DIRECT_WRITE || (op == OP_APPEND && len)) {
		op_write(f, op, at, len);
	} else if (op == OP_READ || op == OP_DIRECT_READ) {
		op_read(f, op, at, len);
	} else if (op == OP_MAP_STORE || op == OP_MAP_LOAD) {
		op_map(f, op, at, len);
	} else if (op == OP_TRUNCATE) {
		OK(ftruncate(f->fd, (off_t)to));
		if (to < f->size)
			memset(f->want + to, 0, f->size - to);
		f->size = to;
	} else if (op >= OP_PUNCH && op <= OP_KEEP_SIZE) {
		op_fallocate(f, op, at, len);
	} else if (op == OP_COPY) {
		op_copy(f, g, at, to, len);
	} else {
		op_other(f, op);
	}
}

static enum op op_pick(void)
{
	unsigned total = 0;
	unsigned pick;
	int op;

	for (op = 0; op < OP_COUNT; op++)
		total += mix->share[op];
	pick = (unsigned)rnd_below(&rnd, total);
	for (op = 0; pick >= mix->share[op]; op++)
		pick -= mix->share[op];
	return (enum op)op;
}

static void fsx_run(const struct mix *m, unsigned long count)
{
	mix = m;
	rnd.state = check_seed();
	check_context("seed %lu", (unsigned long)check_seed());
	scratch = buffer_make(mix->size_max);
	for (int i = 0; i < FILES; i++) {
		snprintf(files[i].name, sizeof(files[i].name), "fsx%d", i);
		files[i].want = buffer_make(mix->size_max);
		file_start(&files[i]);
	}
	for (op_index = 1; op_index <= count && check_failed_count() == 0; op_index++) {
		op_run(op_pick());
		for (int i = 0; i < FILES && op_index % 16 == 0; i++)
			file_verify(&files[i]);
	}
	for (unsigned long i = op_index > LOG_LINES ? op_index - LOG_LINES : 1;
	     check_failed_count() && i < op_index; i++)
		dprintf(STDOUT_FILENO, "#   %s\n", log_line[i % LOG_LINES]);
	for (int i = 0; i < FILES && check_failed_count() == 0; i++) {
		file_stop(&files[i]);
		file_start(&files[i]);
		file_verify(&files[i]);
		file_stop(&files[i]);
	}
}

static void case_all(void)
{
	fsx_run(&mix_all, 4000 * check_scale());
}
static void case_small(void)
{
	fsx_run(&mix_small, 8000 * check_scale());
}
static void case_map(void)
{
	fsx_run(&mix_map, 4000 * check_scale());
}
static void case_clone(void)
{
	fsx_run(&mix_clone, 3000 * check_scale());
}

static const struct check_case cases[] = {
	{ "all", case_all },
	{ "small", case_small },
	{ "map", case_map },
	{ "clone", case_clone },
};

CHECK_MAIN(cases)
