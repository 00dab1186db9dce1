/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operator's log. A message is one line whatever it quotes: control characters (a file name may hold any)
 * become '?', and the line goes out in one write, so lines of several threads do not mix.
 *
 * log_setup() is called while the process has one thread; the others by any thread, and they keep errno.
 */
#include "util/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "util/util.h"

#define LINE_MAX_BYTES 4096
#define HELD_MAX_BYTES 16384

static char log_program[64] = "umbrafs";
static enum log_level log_max_level = LOG_LEVEL_INFO;
static atomic_bool log_to_syslog;

/* log_hold() */
static struct {
	pthread_mutex_t lock;
	atomic_bool is_on; /* (lock) to change it */
	char lines[HELD_MAX_BYTES];
	size_t used_bytes; /* (lock) */
	unsigned lost;     /* (lock) lines that had no room */
} held = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct {
	const char *prefix;
	int priority;
} log_levels[] = {
	[LOG_LEVEL_ERROR] = { "", LOG_ERR },
	[LOG_LEVEL_WARN] = { "warning: ", LOG_WARNING },
	[LOG_LEVEL_INFO] = { "", LOG_INFO },
	[LOG_LEVEL_DEBUG] = { "debug: ", LOG_DEBUG },
};

void log_setup(const char *program, enum log_level max_level, bool to_syslog)
{
	snprintf(log_program, sizeof(log_program), "%s", program);
	log_max_level = max_level;
	if (log_to_syslog)
		closelog();
	log_to_syslog = to_syslog;
	if (to_syslog)
		openlog(log_program, LOG_PID, LOG_DAEMON);
}

void log_syslog(void)
{
	int saved_errno = errno;

	openlog(log_program, LOG_PID, LOG_DAEMON);
	atomic_store(&log_to_syslog, true);
	errno = saved_errno;
}

static void line_clean(char *line)
{
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

static void write_all(int fd, const char *buf, size_t len_bytes)
{
	while (len_bytes > 0) {
		ssize_t n = write(fd, buf, len_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		buf += n;
		len_bytes -= (size_t)n;
	}
}

/* ---- lines that wait ---- */

void log_hold(void)
{
	atomic_store(&held.is_on, true);
}

/* A line is taken at once. A pipe that takes anything takes as many bytes as a line of ours has. */
static bool is_taken(void)
{
	struct pollfd err = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&err, 1, 0) == 1 && !(err.revents & ~POLLOUT);
}

static void lost_say(void)
{
	char line[sizeof(log_program) + 64];
	int len =
		snprintf(line, sizeof(line), "%s: warning: %u lines more are lost\n", log_program, held.lost);

	write_all(STDERR_FILENO, line, (size_t)len);
	held.lost = 0;
}

/* As far as it is taken. */
static void held_offer(void)
{
	while (held.used_bytes > 0 && is_taken()) {
		const char *end = memchr(held.lines, '\n', held.used_bytes);
		size_t len = (size_t)(end - held.lines) + 1;

		write_all(STDERR_FILENO, held.lines, len);
		held.used_bytes -= len;
		memmove(held.lines, end + 1, held.used_bytes);
	}
	if (held.lost > 0 && held.used_bytes == 0 && is_taken())
		lost_say();
}

/* False: lines are written as they come. */
static bool held_take(char *line, size_t len)
{
	bool is_on;

	if (!atomic_load(&held.is_on))
		return false;
	if (len > PIPE_BUF) {
		len = PIPE_BUF;
		line[len - 1] = '\n';
	}
	pthread_mutex_lock(&held.lock);
	is_on = atomic_load(&held.is_on);
	if (is_on)
		held_offer();
	if (is_on && len <= sizeof(held.lines) - held.used_bytes) {
		memcpy(held.lines + held.used_bytes, line, len);
		held.used_bytes += len;
	} else if (is_on) {
		held.lost++;
	}
	if (is_on)
		held_offer();
	pthread_mutex_unlock(&held.lock);
	return is_on;
}

void log_offer(void)
{
	pthread_mutex_lock(&held.lock);
	held_offer();
	pthread_mutex_unlock(&held.lock);
}

void log_release(void)
{
	pthread_mutex_lock(&held.lock);
	atomic_store(&held.is_on, false);
	pthread_mutex_unlock(&held.lock);
	write_all(STDERR_FILENO, held.lines, held.used_bytes);
	held.used_bytes = 0;
	if (held.lost > 0)
		lost_say();
}

void log_line(enum log_level level, const char *fmt, ...)
{
	char message[LINE_MAX_BYTES];
	char line[LINE_MAX_BYTES + sizeof(log_program) + 16];
	int saved_errno = errno;
	va_list args;
	int len;

	if (level > log_max_level)
		return;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	line_clean(message);
	if (log_to_syslog) {
		syslog(log_levels[level].priority, "%s%s", log_levels[level].prefix, message);
	} else {
		len = snprintf(line, sizeof(line), "%s: %s%s\n", log_program, log_levels[level].prefix,
			       message);
		if (!held_take(line, (size_t)len))
			write_all(STDERR_FILENO, line, (size_t)len);
	}
	errno = saved_errno;
}

bool log_is_first(uint64_t place)
{
	enum { SETS = 64, WAYS = 8 };
	static _Atomic uint64_t reported[SETS][WAYS];
	_Atomic uint64_t *set = reported[(place * 0x9e3779b97f4a7c15ull >> 32) % SETS];
	unsigned way = 0;

	for (; way < WAYS; way++) {
		uint64_t seen = atomic_load(&set[way]);

		if (seen == place)
			return false;
		if (seen == 0)
			break;
	}
	atomic_store(&set[way % WAYS], place);
	return true;
}
