/* SPDX-License-Identifier: BSD-3-Clause */
/* Messages: those that are sent, and the thread that reads all that come. What an answer grants is in place before the next message is read. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "client/last.h"
#include "client/section.h"
#include "client/session.h"
#include "util/sabotage.h"

/* At a time: the daemon refuses more than UMBRA_REQUESTS_MAX, and has them a little longer than their answers take. */
#define ASKED_MAX (UMBRA_REQUESTS_MAX / 2)

static int message_send(int sock, const void *msg, size_t len)
{
	ssize_t n;

	do
		n = send(sock, msg, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)len ? 0 : -ENOTCONN;
}

int session_ask(struct session *s, struct umbra_msg *msg, uint16_t expected, struct request *r)
{
	int rc = 0;

	r->done = false;
	r->rc = 0;
	r->old = NULL;
	r->expected = expected;
	pthread_cond_init(&r->cond, NULL);
	pthread_mutex_lock(&client_lock);
	while (!s->ended && s->requests_count >= ASKED_MAX)
		pthread_cond_wait(&client_changed, &client_lock);
	if (s->ended) {
		rc = -ENOTCONN;
	} else {
		s->requests_count++;
		r->id = msg->id = ++s->id_last;
		r->next = s->requests;
		s->requests = r;
	}
	pthread_mutex_unlock(&client_lock);
	if (rc)
		return rc;
	/* If it cannot be sent the session has come to its end: the listener tells. */
	if (message_send(s->sock, msg, msg->size))
		shutdown(s->sock, SHUT_RDWR);
	if (r->meanwhile)
		r->meanwhile();
	pthread_mutex_lock(&client_lock);
	while (!r->done)
		pthread_cond_wait(&r->cond, &client_lock);
	pthread_mutex_unlock(&client_lock);
	pthread_cond_destroy(&r->cond);
	return r->rc;
}

/* Under client_lock. NULL: nobody has asked (or not any more). */
static struct request *request_take(struct session *s, uint64_t id)
{
	for (struct request **at = &s->requests; *at; at = &(*at)->next)
		if ((*at)->id == id) {
			struct request *r = *at;

			*at = r->next;
			if (s->requests_count-- == ASKED_MAX)
				pthread_cond_broadcast(&client_changed);
			return r;
		}
	return NULL;
}

static int pieces_come(struct request *r, const struct umbra_msg_pieces *answer)
{
	if (answer->msg.size < sizeof(*answer) || answer->count > UMBRA_PIECES_MAX ||
	    answer->msg.size != sizeof(*answer) + answer->count * sizeof(answer->pieces[0]))
		return -EPROTO;
	return holding_pieces(r->holding, r->lo, r->hi, answer, &r->old);
}

/* Under client_lock. What the asker is told; -EPROTO: this is no daemon of ours. */
static int answer_take(struct session *s, struct request *r)
{
	const struct umbra_msg *msg = &s->message.head;

	if (msg->type == UMBRA_MSG_ERROR) {
		const struct umbra_msg_error *error = (const void *)msg;

		return msg->size == sizeof(*error) && error->error > 0 && error->error < 4096 ?
			       -(int)error->error :
			       -EPROTO;
	}
	if (msg->type != r->expected)
		return -EPROTO;
	switch (msg->type) {
	case UMBRA_MSG_ATTACHED: {
		const struct umbra_msg_attached *attached = (const void *)msg;

		if (msg->size != sizeof(*attached) ||
		    (attached->slot >= s->slot_count && attached->slot != UMBRA_SLOT_NONE))
			return -EPROTO;
		return file_attached(r->file, s, attached, &r->old);
	}
	case UMBRA_MSG_PIECES:
		return pieces_come(r, (const void *)msg);
	case UMBRA_MSG_LOST: {
		const struct umbra_msg_lost *lost = (const void *)msg;

		if (msg->size != sizeof(*lost))
			return -EPROTO;
		r->lost_lines = lost->lost_lines;
		return 0;
	}
	default:
		return 0;
	}
}

static int answer(struct session *s)
{
	struct request *r;
	int rc = 0;

	pthread_mutex_lock(&client_lock);
	r = request_take(s, s->message.head.id);
	if (r) {
		rc = r->rc = answer_take(s, r);
		r->done = true;
		pthread_cond_signal(&r->cond);
	}
	pthread_mutex_unlock(&client_lock);
	return rc == -EPROTO ? rc : 0;
}

static int revoke(struct session *s)
{
	const struct umbra_msg_revoke *revoke = (const void *)&s->message;
	struct umbra_msg ack = { .size = sizeof(ack), .type = UMBRA_MSG_ACK, .id = revoke->msg.id };
	struct view *old = NULL;
	uint64_t hi;
	int rc;

	if (revoke->msg.size != sizeof(*revoke))
		return -EPROTO;
	if (__builtin_add_overflow(revoke->off, revoke->len, &hi))
		hi = UINT64_MAX;
	pthread_mutex_lock(&client_lock);
	for (struct holding *h = client_holdings; h; h = h->next)
		if (h->session == s && h->handle == revoke->handle)
			holding_revoke(h, revoke->off, hi, revoke->flags & UMBRA_REVOKE_WRITE, &old);
	pthread_mutex_unlock(&client_lock);
	atomic_fetch_add(&client_revokes, 1);
	/* Copies that have begun may go on where they were: nobody hears that we have let go before they have ended. */
	if (!sabotage_point("revoke-wait"))
		section_wait();
	rc = message_send(s->sock, &ack, sizeof(ack));
	if (sabotage_point("revoke-wait"))
		section_wait();
	views_retire(old);
	return rc;
}

static bool message_read(struct session *s)
{
	ssize_t n;

	do
		n = recv(s->sock, s->message.bytes, sizeof(s->message), 0);
	while (n < 0 && errno == EINTR);
	return n >= (ssize_t)sizeof(s->message.head) && s->message.head.size == (size_t)n;
}

void *session_listen(void *arg)
{
	struct session *s = arg;
	int rc = 0;

	last_thread_begins();
	while (rc == 0 && message_read(s))
		rc = s->message.head.type == UMBRA_MSG_REVOKE ? revoke(s) : answer(s);
	session_end(s);
	last_thread_ends();
	return NULL;
}
