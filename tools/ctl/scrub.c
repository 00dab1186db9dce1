/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl scrub: verifies both copies of all metadata of a mounted file system.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl scrub start|status|stop|throttle [--rate SIZE] [--wait] [--json] PATH\n"
	"Reads both copies of all metadata of the umbrafs that PATH is on, and mends one from the other.\n"
	"\n"
	"  start        begins; runs in the daemon\n"
	"  status       how far it is, what it found\n"
	"  stop         ends it where it is\n"
	"  throttle     sets another rate while it runs\n"
	"\n"
	"  -r, --rate SIZE   start, throttle: at most so many bytes a second (10M, 1G ...; 0: no limit)\n"
	"  -w, --wait        start, status: until it ends; shows progress on a terminal\n"
	"Exit status: 0 done, or as asked; 1 failed, or something was found that could not be mended; 2 usage.\n";

static const char *const states[] = { "never", "running", "done", "stopped", "failed" };

struct scrub_args {
	uint64_t rate;
	bool has_rate, wait;
};

static int take(void *arg, int letter, const char *value)
{
	struct scrub_args *s = arg;

	if (letter == 'w') {
		s->wait = true;
		return 0;
	}
	s->has_rate = true;
	if (args_size(value, &s->rate))
		return 0;
	fprintf(stderr, "umbractl scrub: --rate %s: not a size\n", value);
	return STATUS_USAGE;
}

static const char *state_text(const struct umbra_scrub *s)
{
	return s->state < sizeof(states) / sizeof(states[0]) ? states[s->state] : "?";
}

static int print_json(const struct umbra_scrub *s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "state", json_object_new_string(state_text(s)));
	json_object_object_add(o, "started", json_u64(s->started_s));
	json_object_object_add(o, "ended", json_u64(s->ended_s));
	json_object_object_add(o, "total_bytes", json_u64(s->total_bytes));
	json_object_object_add(o, "done_bytes", json_u64(s->done_bytes));
	json_object_object_add(o, "run_ns", json_u64(s->run_ns));
	json_object_object_add(o, "cpu_ns", json_u64(s->cpu_ns));
	json_object_object_add(o, "rate", json_u64(s->rate));
	json_object_object_add(o, "healed", json_u64(s->healed));
	json_object_object_add(o, "lost", json_u64(s->lost));
	json_object_object_add(o, "unhealed", json_u64(s->unhealed));
	if (s->error)
		json_object_object_add(o, "error", json_object_new_string(strerror((int)s->error)));
	return ctl_print_json(o);
}

static void time_print(const char *what, uint64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[32];

	if (seconds && localtime_r(&t, &tm) && strftime(text, sizeof(text), "%F %T", &tm))
		printf("%-10s%s\n", what, text);
}

static int print_text(const struct umbra_scrub *s)
{
	char done[ARGS_SIZE_TEXT], total[ARGS_SIZE_TEXT], rate[ARGS_SIZE_TEXT];

	printf("%-10s%s%s%s\n", "state", state_text(s), s->error ? ": " : "",
	       s->error ? strerror((int)s->error) : "");
	time_print("started", s->started_s);
	time_print("ended", s->ended_s);
	if (s->state != UMBRA_SCRUB_NONE)
		printf("%-10s%s of about %s%s%s\n", "read", args_size_text(s->done_bytes, done, sizeof(done)),
		       args_size_text(s->total_bytes, total, sizeof(total)),
		       s->rate ? ", at most per second " : "",
		       s->rate ? args_size_text(s->rate, rate, sizeof(rate)) : "");
	if (s->run_ns != 0 && s->cpu_ns != 0)
		printf("%-10s%.3f s, %.2f GB/s; %.2f GB for each second of a core\n", "took",
		       (double)s->run_ns / 1e9, (double)s->done_bytes / (double)s->run_ns,
		       (double)s->done_bytes / (double)s->cpu_ns);
	printf("%-10s%llu copies\n%-10s%llu units\n%-10s%llu bad copies\n", "healed",
	       (unsigned long long)s->healed, "lost", (unsigned long long)s->lost, "unhealed",
	       (unsigned long long)s->unhealed);
	return ctl_finish();
}

static int wait_end(int fd, struct umbra_scrub *s, bool quiet)
{
	const struct timespec step = { 0, 100000000 };
	bool shown = false;

	while (s->state == UMBRA_SCRUB_RUNS) {
		if (!quiet && isatty(STDERR_FILENO)) {
			fprintf(stderr, "\rscrub: %3.0f %% ",
				s->total_bytes ? 100.0 * (double)s->done_bytes / (double)s->total_bytes :
						 0.0);
			shown = true;
		}
		nanosleep(&step, NULL);
		s->op = UMBRA_SCRUB_STATUS;
		if (ioctl(fd, UMBRA_IOC_SCRUB, s))
			return errno;
	}
	if (shown)
		fprintf(stderr, "\r             \r");
	return 0;
}

static int what_op(const char *word, const struct scrub_args *s)
{
	static const char *const words[] = { "status", "start", "stop", "throttle" };

	for (int i = 0; i < 4; i++) {
		if (strcmp(word, words[i]))
			continue;
		if ((i == UMBRA_SCRUB_RATE) == !s->has_rate && i != UMBRA_SCRUB_START) {
			fprintf(stderr, "umbractl scrub %s: %s\n", word,
				s->has_rate ? "takes no --rate" : "--rate is missing");
			return -1;
		}
		return i;
	}
	fprintf(stderr, "umbractl scrub: no such thing to do: '%s' (try --help)\n", word);
	return -1;
}

int ctl_scrub(int argc, char **argv)
{
	static const struct option longs[] = { { "rate", required_argument, NULL, 'r' },
					       { "wait", no_argument, NULL, 'w' },
					       { NULL, 0, NULL, 0 } };
	struct scrub_args s = { 0 };
	struct ctl_args args = {
		.usage = usage, .letters = "r:w", .longs = longs, .take = take, .arg = &s, .min = 2, .max = 2
	};
	struct umbra_scrub arg = { 0 };
	int rc = ctl_parse(&args, argc, argv), op, fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	op = what_op(args.names[0], &s);
	if (op < 0)
		return STATUS_USAGE;
	fd = ctl_open(args.names[1], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	arg.op = (uint32_t)op;
	arg.rate = s.rate;
	rc = ioctl(fd, UMBRA_IOC_SCRUB, &arg) ? errno : 0;
	if (!rc && s.wait)
		rc = wait_end(fd, &arg, args.json);
	close(fd);
	if (rc == EBUSY)
		return ctl_say(args.names[1], "a scrub is running already");
	if (rc)
		return ctl_fail(args.names[1], rc);
	rc = 0;
	if (args.json)
		rc = print_json(&arg);
	else if (op == UMBRA_SCRUB_STATUS || s.wait)
		rc = print_text(&arg);
	if (!rc && (op == UMBRA_SCRUB_STATUS || s.wait) &&
	    (arg.state == UMBRA_SCRUB_FAILED || arg.lost || arg.unhealed))
		rc = STATUS_FAILED;
	return rc;
}
