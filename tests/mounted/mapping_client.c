/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A process with mappings of libumbra that does what it is told, each command in a thread of its own: restart.py, poison_mappings.py.
 *
 *	mapping_client FILE...        commands are lines: TAG COMMAND FILE_INDEX [OFFSET [VALUE]]; an answer is a line: TAG RESULT
 *
 *	map, unmap      of the whole file, which is attached; "ok" or an error's number
 *	attach, detach  with a descriptor of its own; the mapping stays
 *	load, store     of a word; "bus SI_CODE WHERE" (WHERE: si_addr is off by so much) if that came of it
 *	read, write     of a word, by umbra_pread(), umbra_pwrite(); an error's number
 *	fill            VALUE bytes, as file_make() of mapping_driver.py makes them
 *	early           SIGBUS with BUS_MCEERR_AO for that address
 *	sync            all of the mapping
 *	counts          what the kernel has read and written, and sessions lost
 *
 * MAPPING_STACK=1 in the environment: each thread has a stack for signals as runtimes of languages make it, of 8 KiB above a page that is not to be touched. MAPPING_ENDS=1: at the end of its input the main
 * thread ends, and the process with its last thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <umbra/umbra.h>

#define FILES_MAX 8
#define PAGE_BYTES 4096u
#define STACK_BYTES 8192u

static struct {
	const char *name;
	int fd;
	struct umbra_file *file;
	uint8_t *at;
	size_t len;
} files[FILES_MAX];

static __thread sigjmp_buf out;
static __thread siginfo_t seen;
static __thread volatile sig_atomic_t touching;

struct command {
	char tag[32], what[16];
	unsigned index;
	unsigned long long off, value;
};

static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!touching) {
		/* Not by an access: ends the process, as without a handler. */
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	seen = *info;
	siglongjmp(out, 1);
}

static int attach(unsigned i)
{
	files[i].fd = open(files[i].name, O_RDWR | O_CLOEXEC);
	return files[i].fd < 0 ? -errno : umbra_attach(files[i].fd, &files[i].file);
}

static int map(unsigned i)
{
	struct sigaction action = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
	struct stat st;
	int rc;

	sigaction(SIGBUS, &action, NULL);
	rc = attach(i);
	if (rc)
		return rc;
	if (fstat(files[i].fd, &st))
		return -errno;
	files[i].len = (size_t)st.st_size;
	files[i].at = umbra_mmap(NULL, files[i].len, PROT_READ | PROT_WRITE, MAP_SHARED, files[i].file, 0);
	return umbra_mmap_error(files[i].at);
}

static void detach(unsigned i)
{
	umbra_detach(files[i].file);
	close(files[i].fd);
	files[i].file = NULL;
}

static int early(void *at)
{
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_MCEERR_AO };

	info.si_addr = at;
	return (int)syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info);
}

static void touch(const struct command *c, char *result, size_t size)
{
	volatile uint64_t *at = (volatile uint64_t *)(void *)(files[c->index].at + c->off);

	if (sigsetjmp(out, 1)) {
		touching = 0;
		snprintf(result, size, "bus %s %lld",
			 seen.si_code == BUS_MCEERR_AR ? "mceerr_ar" :
			 seen.si_code == BUS_ADRERR    ? "adrerr" :
							 "other",
			 (long long)((uintptr_t)seen.si_addr - (uintptr_t)at));
		return;
	}
	touching = 1;
	if (c->what[0] == 's') {
		*at = c->value;
		snprintf(result, size, "ok");
	} else {
		uint64_t word = *at;

		snprintf(result, size, "%#llx", (unsigned long long)word);
	}
	touching = 0;
}

static void call(const struct command *c, char *result, size_t size)
{
	uint64_t word = c->value;
	bool store = c->what[0] == 'w';
	ssize_t n = store ? umbra_pwrite(files[c->index].file, &word, sizeof(word), (off_t)c->off) :
			    umbra_pread(files[c->index].file, &word, sizeof(word), (off_t)c->off);

	if (n < 0)
		snprintf(result, size, "%zd", n);
	else if (store)
		snprintf(result, size, "ok");
	else
		snprintf(result, size, "%#llx", (unsigned long long)word);
}

/* What mapping_driver.py's file_make() puts there. */
static int fill(const struct command *c)
{
	uint64_t words[512];
	ssize_t n;

	for (unsigned i = 0; i < c->value / 8 && i < 512; i++) {
		uint64_t at = c->off + i * 8;

		words[i] = at / 4096 << 32 | at % 4096 / 8;
	}
	n = umbra_pwrite(files[c->index].file, words, c->value, (off_t)c->off);
	return n == (ssize_t)c->value ? 0 : n < 0 ? (int)n : -EIO;
}

/* As the one of Rust's threads. */
static void stack_begin(void)
{
	size_t size = (size_t)sysconf(_SC_MINSIGSTKSZ) > STACK_BYTES / 2 ? (size_t)sysconf(_SC_SIGSTKSZ) :
									   STACK_BYTES;
	uint8_t *at =
		mmap(NULL, PAGE_BYTES + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t stack = { .ss_sp = at + PAGE_BYTES, .ss_size = size };

	if (at == MAP_FAILED || mprotect(at, PAGE_BYTES, PROT_NONE) || sigaltstack(&stack, NULL))
		abort();
}

static void *run(void *arg)
{
	struct command *c = arg;
	unsigned i = c->index;
	char result[96] = "ok";
	struct umbra_counts counts;
	int rc = 0;

	if (getenv("MAPPING_STACK"))
		stack_begin();
	if (strcmp(c->what, "map") == 0) {
		rc = map(i);
	} else if (strcmp(c->what, "unmap") == 0) {
		rc = umbra_munmap(files[i].at, files[i].len);
	} else if (strcmp(c->what, "attach") == 0) {
		rc = attach(i);
	} else if (strcmp(c->what, "detach") == 0) {
		detach(i);
	} else if (strcmp(c->what, "load") == 0 || strcmp(c->what, "store") == 0) {
		touch(c, result, sizeof(result));
	} else if (strcmp(c->what, "read") == 0 || strcmp(c->what, "write") == 0) {
		call(c, result, sizeof(result));
	} else if (strcmp(c->what, "fill") == 0) {
		rc = fill(c);
	} else if (strcmp(c->what, "early") == 0) {
		rc = early(files[i].at + c->off);
	} else if (strcmp(c->what, "sync") == 0) {
		rc = umbra_msync(files[i].at, files[i].len, MS_SYNC);
	} else if (strcmp(c->what, "counts") == 0) {
		umbra_get_counts(&counts);
		snprintf(result, sizeof(result), "%llu %llu %llu", counts.kernel_reads, counts.kernel_writes,
			 counts.lost_sessions);
	} else {
		snprintf(result, sizeof(result), "no such command");
	}
	if (rc)
		snprintf(result, sizeof(result), "%d", rc);
	printf("%s %s\n", c->tag, result);
	free(c);
	return NULL;
}

int main(int argc, char **argv)
{
	char line[200];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc && i <= FILES_MAX; i++)
		files[i - 1].name = argv[i];
	while (fgets(line, sizeof(line), stdin)) {
		struct command *c = calloc(1, sizeof(*c));
		pthread_t thread;

		if (!c ||
		    sscanf(line, "%31s %15s %u %lli %lli", c->tag, c->what, &c->index, (long long *)&c->off,
			   (long long *)&c->value) < 3 ||
		    c->index >= FILES_MAX)
			return 2;
		if (pthread_create(&thread, NULL, run, c))
			return 2;
		pthread_detach(thread);
	}
	if (getenv("MAPPING_ENDS"))
		pthread_exit(NULL);
	return 0;
}
