/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * null_fuse [-f] [-o OPTIONS] DIR: an in-memory FUSE server, the least that FUSE can cost.
 *
 * It keeps all data and names, and does nothing else: what a file system on FUSE takes more than this
 * is its own. Options besides libfuse's: dio (direct I/O), writeback, noflush, threads=N,
 * loop=lib|own|caller, cpu=N (pins the threads of loop=own).
 */
#include "null_fuse.h"

#include "null_store.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPT(text, field)                                   \
	{                                                  \
		text, offsetof(struct null_opts, field), 1 \
	}

static const struct fuse_opt null_opt_specs[] = { OPT("dio", dio),
						  OPT("writeback", writeback),
						  OPT("noflush", noflush),
						  OPT("threads=%u", threads_count),
						  OPT("loop=%s", loop),
						  OPT("cpu=%i", cpu),
						  FUSE_OPT_END };

static int serve(struct fuse_session *se, const struct fuse_cmdline_opts *cmd, const struct null_opts *opts)
{
	int rc = -EIO;

	if (fuse_set_signal_handlers(se))
		return rc;
	if (fuse_session_mount(se, cmd->mountpoint))
		goto out_signals;
	if (fuse_daemonize(cmd->foreground) == 0)
		rc = null_loop(se, opts);
	fuse_session_unmount(se);
out_signals:
	fuse_remove_signal_handlers(se);
	return rc;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct null_opts opts = { .threads_count = 10, .cpu = -1 };
	struct fuse_cmdline_opts cmd;
	struct fuse_session *se;
	int rc = 1;

	if (fuse_opt_parse(&args, &opts, null_opt_specs, NULL) || fuse_parse_cmdline(&args, &cmd))
		return 2;
	if (!cmd.mountpoint || cmd.show_help || opts.threads_count == 0) {
		fprintf(stderr,
			"usage: %s [-f] [-o dio,writeback,noflush,threads=N,loop=lib|own|caller,cpu=N] DIR\n",
			argv[0]);
		rc = 2;
		goto out;
	}
	store_init();
	se = fuse_session_new(&args, &null_ops, sizeof(null_ops), &opts);
	if (!se)
		goto out;
	/* Positive: ended by a signal. */
	rc = serve(se, &cmd, &opts) < 0 ? 1 : 0;
	fuse_session_destroy(se);
out:
	free(cmd.mountpoint);
	free(opts.loop);
	fuse_opt_free_args(&args);
	return rc;
}
