/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One line of text to the operator: to standard error, or to syslog once the daemon is in the background.
 */
#ifndef UMBRA_UTIL_LOG_H
#define UMBRA_UTIL_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above max_level are dropped; to_syslog sends the rest to syslog instead of standard error. */
void log_setup(const char *program, enum log_level max_level, bool to_syslog);

/* From now on to syslog. */
void log_syslog(void);

/*
 * From now on, until log_release(), no line waits for whoever takes standard error: he may himself wait for us. What he does not take at once is kept, up to some KiB of it,
 * and comes before the next line that he takes; how many lines had no room is said then.
 */
void log_hold(void);
/* What was kept, as far as it is taken at once. */
void log_offer(void);
/* What was kept; this waits. By the thread that called log_hold(). */
void log_release(void);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Whether nothing has been reported about this place (an address) yet: damage is met again and again. Forgets some places
 * when there are hundreds.
 */
bool log_is_first(uint64_t place);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
