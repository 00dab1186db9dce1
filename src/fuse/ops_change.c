/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The private ioctls that change files behind the kernel's back: clone, dedupe, fallocate, clone of whole files, repair of what is lost.
 *
 * The kernel must neither keep pages that are no longer true nor write old ones over what was just changed. So the range is written back and
 * dropped, then changed, then dropped again (with the attributes, for the size), and only then the caller hears of it. Dropping waits for
 * pages under way, which workers have to answer: it is done on a deferred thread, with no lock held.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <umbra/ioctl.h>

#include "fuse/again.h"
#include "fuse/ops.h"

struct change {
	struct defer_work work;
	struct session *session;
	fuse_req_t req;
	struct fs_cred cred;
	pid_t pid; /* of the caller's process */
	uint64_t ino;
	uint64_t fh;
	unsigned cmd;
	size_t size_bytes; /* of arg */
	union {
		struct umbra_clone_range clone;
		struct umbra_dedupe_range dedupe;
		struct umbra_fallocate fallocate;
		struct umbra_clone_files files;
		struct umbra_repair repair;
		struct umbra_evacuate evacuate;
	} arg[]; /* as much of it as cmd has */
};

/* Pages of [off, off + len), len 0 = to the end; attributes always. */
static void kernel_drop(struct change *c, uint64_t off, uint64_t len)
{
	uint64_t start = u64_align_down(off, BLOCK_SIZE);
	uint64_t end = len ? u64_align_up(off + len, BLOCK_SIZE) : start;

	/* -ENOENT: it knows none. Anything else: it is going away. */
	(void)session_drop(c->session, c->ino, (off_t)start, (off_t)(end - start));
}

/* attr: of the file that the token names. */
static int token_source(struct change *c, const struct umbra_token *token, struct inode_attr *attr)
{
	struct token_file file;
	int rc;

	if (!(c->fh & OPS_FH_WRITE))
		return -EBADF;
	if (again_source()) /* a daemon before this one has taken the token */
		return fs_getattr(c->session->fs, again_source(), attr);
	/* Noted before it is used up: then it may go on without. */
	if (kept_now && token_look(c->session->tokens, token, c->pid, &file) && file.mode & OPS_FH_READ)
		again_took_token(file.ino);
	rc = token_use(c->session->tokens, token, c->pid, &file);
	if (!rc && !(file.mode & OPS_FH_READ)) /* a token for mapping alone */
		rc = -EACCES;
	if (rc) {
		again_took_token(0);
		return rc;
	}
	rc = fs_getattr(c->session->fs, file.ino, attr);
	if (rc)
		return rc;
	return attr->gen == file.gen ? 0 : -ESTALE;
}

/* Whoever changes the content takes the file's capabilities away, root too. */
static int caps_drop(struct change *c)
{
	int rc = fs_removexattr(c->session->fs, c->ino, "security.capability");

	return rc == -ENODATA ? 0 : rc;
}

static bool range_ok(uint64_t off, uint64_t len)
{
	return off <= FS_SIZE_MAX && len <= FS_SIZE_MAX - off;
}

static int change_clone(struct change *c)
{
	struct umbra_clone_range *arg = &c->arg->clone;
	unsigned flags = FS_CLONE_STRICT | (c->cred.kill_priv_exempt ? 0 : FS_CLONE_KILLPRIV);
	struct inode_attr src;
	int64_t n;
	int rc;

	if (arg->flags || !range_ok(arg->dst_off, arg->len))
		return -EINVAL;
	if (c->fh & OPS_FH_APPEND) /* as FICLONERANGE */
		return -EBADF;
	rc = token_source(c, &arg->token, &src);
	if (rc)
		return rc;
	if (arg->src_off > src.size || arg->len > src.size - arg->src_off)
		return -EINVAL; /* all or nothing */
	kernel_drop(c, arg->dst_off, arg->len);
	rc = caps_drop(c);
	if (rc)
		return rc;
	n = fs_clone(c->session->fs, &c->cred, src.ino, arg->src_off, c->ino, arg->dst_off, arg->len, flags,
		     NULL);
	kernel_drop(c, arg->dst_off, arg->len);
	if (n < 0)
		return (int)n;
	arg->cloned = (uint64_t)n;
	return 0;
}

static int change_dedupe(struct change *c)
{
	struct umbra_dedupe_range *arg = &c->arg->dedupe;
	struct inode_attr src;
	bool same;
	int rc;

	/* The comparison holds both files, and one of the few deferred threads. */
	if (arg->flags || !range_ok(arg->dst_off, arg->len) || arg->len > UMBRA_DEDUPE_MAX)
		return -EINVAL;
	rc = token_source(c, &arg->token, &src);
	if (rc)
		return rc;
	/* Its bytes do not change, so cached pages stay true; but dirty ones have to be in the comparison. */
	kernel_drop(c, arg->dst_off, arg->len);
	rc = fs_dedupe(c->session->fs, src.ino, arg->src_off, c->ino, arg->dst_off, arg->len, &same);
	if (rc)
		return rc;
	arg->status = !same;
	arg->deduped = same ? arg->len : 0;
	return 0;
}

static int change_fallocate(struct change *c)
{
	const struct umbra_fallocate *arg = &c->arg->fallocate;
	int rc;

	if (arg->pad || arg->len == 0 || !range_ok(arg->off, arg->len))
		return -EINVAL;
	if (!(c->fh & OPS_FH_WRITE))
		return -EBADF;
	rc = caps_drop(c);
	if (rc)
		return rc;
	/* Collapse and insert move everything behind them. */
	kernel_drop(c, arg->off, 0);
	if (!again_is_done(&rc))
		rc = fs_fallocate(c->session->fs, &c->cred, c->ino, (int)arg->mode, arg->off, arg->len);
	kernel_drop(c, arg->off, 0);
	return rc;
}

/* -EINVAL: the records make no sense. */
static int files_decode(const struct umbra_clone_files *arg, struct fs_clone_item *items)
{
	size_t at = 0;

	if (arg->size > sizeof(arg->data))
		return -EINVAL;
	for (uint32_t i = 0; i < arg->count; i++) {
		const struct umbra_clone_name *name = (const void *)(arg->data + at);

		if (arg->size - at < sizeof(*name) || name->record_size > arg->size - at ||
		    name->record_size % 8 != 0 || name->record_size < sizeof(*name) + name->name_len ||
		    name->pad != 0 || name->name_len == 0)
			return -EINVAL;
		if (memchr(name->name, '/', name->name_len) || memchr(name->name, '\0', name->name_len))
			return -EINVAL;
		if (name->name[0] == '.' &&
		    (name->name_len == 1 || (name->name_len == 2 && name->name[1] == '.')))
			return -EINVAL;
		items[i] = (struct fs_clone_item){ name->ino, name->name, name->name_len, 0 };
		at += name->record_size;
	}
	return at == arg->size ? 0 : -EINVAL;
}

static int change_files(struct change *c)
{
	struct umbra_clone_files *arg = &c->arg->files;
	unsigned before = (unsigned)u64_min(again_so_far(), arg->count), done = 0;
	struct fs_clone_item *items;
	int rc = 0;

	if (c->cred.uid != 0)
		return -EPERM;
	if (!(c->fh & OPS_FH_DIR))
		return -ENOTDIR;
	if (arg->count == 0 || arg->count > sizeof(arg->data) / sizeof(struct umbra_clone_name))
		return -EINVAL;
	items = calloc(arg->count, sizeof(*items));
	if (!items)
		return -ENOMEM;
	rc = files_decode(arg, items);
	if (rc)
		goto out;
	if (before < arg->count)
		rc = fs_clone_files(c->session->fs, &c->cred, c->ino, items + before, arg->count - before,
				    &done);
	done += before;
	/* The kernel may remember that there was no such name. */
	for (unsigned i = 0; i < done; i++)
		(void)session_drop_name(c->session, c->ino, items[i].name, items[i].name_len);
	if (done > 0)
		(void)session_drop(c->session, c->ino, -1, 0);
	arg->done = done;
	arg->error = (uint32_t)(rc < 0 ? -rc : 0);
	rc = 0;
out:
	free(items);
	return rc;
}

static int change_repair(struct change *c)
{
	struct umbra_repair *arg = &c->arg->repair;
	struct fs_healed healed = { 0 };
	int rc;

	if (c->cred.uid != 0 && c->cred.uid != getuid())
		return -EPERM; /* it goes into files of others, who share the block */
	if (arg->damaged || !range_ok(arg->off, BLOCK_SIZE))
		return -EINVAL;
	if (!(c->fh & OPS_FH_WRITE))
		return -EBADF;
	/* A dirty page heals the block by itself. */
	kernel_drop(c, arg->off, BLOCK_SIZE);
	rc = fs_heal(c->session->fs, c->ino, arg->off, arg->block, &healed);
	arg->healed = healed.count;
	arg->damaged = healed.damaged;
	memcpy(arg->damaged_inos, healed.damaged_inos, sizeof(arg->damaged_inos));
	return rc;
}

static int change_run(struct change *c)
{
	switch (c->cmd) {
	case UMBRA_IOC_CLONE_RANGE:
		return change_clone(c);
	case UMBRA_IOC_DEDUPE_RANGE:
		return change_dedupe(c);
	case UMBRA_IOC_FALLOCATE:
		return change_fallocate(c);
	case UMBRA_IOC_CLONE_FILES:
		return change_files(c);
	case UMBRA_IOC_REPAIR:
		return change_repair(c);
	case UMBRA_IOC_EVACUATE:
		place_apart(c->session->place);
		return evacuate_change(c->session->fs, c->cred.uid, &c->arg->evacuate);
	default:
		return -ENOTTY;
	}
}

static void change_work(struct defer_work *work)
{
	struct change *c = container_of(work, struct change, work);
	int rc = change_run(c);

	if (rc)
		ops_reply(c->req, rc);
	else if (_IOC_DIR(c->cmd) & _IOC_READ)
		fuse_reply_ioctl(c->req, 0, c->arg, c->size_bytes);
	else
		fuse_reply_ioctl(c->req, 0, NULL, 0);
	free(c);
}

void change_start(fuse_req_t req, fuse_ino_t ino, unsigned cmd, const struct fuse_file_info *fi,
		  const void *in)
{
	struct session *session = req_session(req);
	struct defer *defer = cmd == UMBRA_IOC_EVACUATE ? session->mover : session->defer;
	size_t size = _IOC_SIZE(cmd);
	struct change *c = malloc(sizeof(*c) + size);

	if (!c) {
		ops_reply(req, -ENOMEM);
		return;
	}
	*c = (struct change){
		.work = { .fn = change_work },
		.session = session,
		.req = req,
		.cred = ops_cred(req),
		.pid = token_process(fuse_req_ctx(req)->pid),
		.ino = ino,
		.fh = fi->fh,
		.cmd = cmd,
		.size_bytes = size,
	};
	memcpy(c->arg, in, size);
	if (!defer_add(defer, &c->work)) {
		ops_reply(req, -EIO); /* being unmounted */
		free(c);
	}
}
