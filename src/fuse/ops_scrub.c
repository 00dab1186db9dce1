/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UMBRA_IOC_SCRUB: start, watch and stop the scrub of this mount.
 */
#include <errno.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/ops.h"

static void status_fill(struct umbra_scrub *out, const struct scrub_status *s)
{
	static const uint32_t states[] = {
		[SCRUB_NONE] = UMBRA_SCRUB_NONE,     [SCRUB_RUNS] = UMBRA_SCRUB_RUNS,
		[SCRUB_DONE] = UMBRA_SCRUB_DONE,     [SCRUB_STOPPED] = UMBRA_SCRUB_STOPPED,
		[SCRUB_FAILED] = UMBRA_SCRUB_FAILED,
	};

	out->state = states[s->state];
	out->rate = s->rate_bytes;
	out->started_s = s->started_s;
	out->ended_s = s->ended_s;
	out->total_bytes = s->total_bytes;
	out->done_bytes = s->done_bytes;
	out->run_ns = s->run_ns;
	out->cpu_ns = s->cpu_ns;
	out->healed = s->healed_count;
	out->lost = s->lost_count;
	out->unhealed = s->unhealed_count;
	out->error = (uint32_t)-s->error;
}

void ops_scrub(fuse_req_t req, const void *in)
{
	struct session *session = req_session(req);
	uid_t uid = fuse_req_ctx(req)->uid;
	struct umbra_scrub arg = *(const struct umbra_scrub *)in;
	struct scrub_status status;
	int rc = 0;

	if (arg.op != UMBRA_SCRUB_STATUS && uid != 0 && uid != getuid()) {
		ops_reply(req, -EPERM);
		return;
	}
	switch (arg.op) {
	case UMBRA_SCRUB_STATUS:
		break;
	case UMBRA_SCRUB_START:
		rc = scrub_start(session->scrub, arg.rate);
		break;
	case UMBRA_SCRUB_STOP:
		scrub_stop(session->scrub);
		break;
	case UMBRA_SCRUB_RATE:
		scrub_set_rate(session->scrub, arg.rate);
		break;
	default:
		rc = -EINVAL;
	}
	if (rc) {
		ops_reply(req, rc);
		return;
	}
	scrub_get_status(session->scrub, &status);
	status_fill(&arg, &status);
	fuse_reply_ioctl(req, 0, &arg, sizeof(arg));
}
