/* SPDX-License-Identifier: BSD-3-Clause */
/* FIFOs, sockets, device nodes and programs at work, not just as names. */
#define _GNU_SOURCE
#include "files.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

static void fifo_writer(void *arg)
{
	int fd = file_open(arg, O_WRONLY);

	for (int i = 0; i < 1000; i++)
		EQ(10, write(fd, "0123456789", 10));
}

static void case_fifo(void)
{
	char buf[4096];
	size_t total = 0;
	ssize_t n;
	pid_t pid;
	int fd;

	MUST(mkfifo("p", 0600));
	pid = child_start(fifo_writer, (char[]){ "p" });
	fd = file_open("p", O_RDONLY);
	while ((n = OK(read(fd, buf, sizeof(buf)))) > 0)
		total += (size_t)n;
	EQ(10000, total);
	child_wait(pid);
	EQ(0, path_stat("p").st_size);
	/* Renamed and linked it is still the same pipe. */
	OK(link("p", "q"));
	OK(rename("p", "r"));
	int rd = (int)MUST(open("q", O_RDONLY | O_NONBLOCK));
	int wr = (int)MUST(open("r", O_WRONLY | O_NONBLOCK));
	EQ(3, write(wr, "abc", 3));
	EQ(3, read(rd, buf, 10));
	OK(unlink("q"));
	OK(unlink("r"));
	EQ(3, write(wr, "def", 3));
	EQ(3, read(rd, buf, 10));
	ERR(ESPIPE, lseek(rd, 0, SEEK_SET));
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	return a;
}

static void case_socket(void)
{
	struct sockaddr_un a = address("s");
	int server = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	int client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	char buf[8];
	int conn;

	MUST(bind(server, (struct sockaddr *)&a, sizeof(a)));
	MUST(listen(server, 5));
	TRUE(S_ISSOCK(path_stat("s").st_mode));
	OK(connect(client, (struct sockaddr *)&a, sizeof(a)));
	conn = (int)MUST(accept(server, NULL, NULL));
	EQ(5, write(client, "hello", 5));
	EQ(5, read(conn, buf, 8));
	ERR(EADDRINUSE, bind((int)MUST(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, sizeof(a)));
	/* Permission to write the socket file is permission to connect. */
	OK(chmod("s", 0700));
	client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR_AS(USER_A, EACCES, connect(client, (struct sockaddr *)&a, sizeof(a)));
	OK(chmod("s", 0777));
	OK_AS(USER_A, connect(client, (struct sockaddr *)&a, sizeof(a)));
	/* Under its new name; and nobody listens once the server is gone. */
	OK(rename("s", "t"));
	a = address("t");
	client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(client, (struct sockaddr *)&a, sizeof(a)));
	OK(close(server));
	client = (int)MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	ERR(ECONNREFUSED, connect(client, (struct sockaddr *)&a, sizeof(a)));
	OK(unlink("t"));
	ERR(ENOENT, connect(client, (struct sockaddr *)&a, sizeof(a)));
}

static void case_datagram_socket(void)
{
	struct sockaddr_un a = address("d1");
	struct sockaddr_un b = address("d2");
	int s1 = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	int s2 = (int)MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	char buf[8];

	MUST(bind(s1, (struct sockaddr *)&a, sizeof(a)));
	MUST(bind(s2, (struct sockaddr *)&b, sizeof(b)));
	EQ(3, sendto(s1, "abc", 3, 0, (struct sockaddr *)&b, sizeof(b)));
	EQ(3, recv(s2, buf, 8, 0));
}

/* Needs a mount with dev, as the suite makes it. */
static void case_devices(void)
{
	char buf[16] = "0123456789";
	int fd;

	MUST(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
	MUST(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
	MUST(mknod("full", S_IFCHR | 0666, makedev(1, 7)));
	fd = open("null", O_RDWR);
	if (fd == -1 && errno == EACCES)
		check_skip("mounted nodev");
	MUST(fd);
	EQ(10, write(fd, buf, 10));
	EQ(0, read(fd, buf, 10));
	fd = file_open("zero", O_RDWR);
	EQ(10, read(fd, buf, 10));
	EQ(0, buf[5]);
	fd = file_open("full", O_RDWR);
	ERR(ENOSPC, write(fd, buf, 10));
	user_is(USER_A, USER_A);
	fd = file_open("zero", O_RDONLY);
	EQ(1, read(fd, buf, 1));
	user_root();
	OK(chmod("zero", 0600));
	ERR_AS(USER_A, EACCES, open("zero", O_RDONLY));
}

static int run(const char *path)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		execl(path, path, "13", (char *)NULL);
		_exit(100 + (errno == EACCES ? 1 : errno == ENOEXEC ? 2 : errno == ENOENT ? 3 : 9));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void case_exec(void)
{
	static const char script[] = "#!/bin/sh\nexit $1\n";
	static const char missing[] = "#!/no/such/interpreter\n";

	file_make("script", script, sizeof(script) - 1);
	EQ(101, run("./script"));
	OK(chmod("script", 0755));
	EQ(13, run("./script"));
	OK(chmod("script", 0700));
	user_is(USER_A, USER_A);
	EQ(101, run("./script"));
	user_root();
	file_make("missing", missing, sizeof(missing) - 1);
	OK(chmod("missing", 0755));
	EQ(103, run("./missing"));
	file_fill("noise", 1000, 77);
	OK(chmod("noise", 0755));
	EQ(102, run("./noise"));
	MUST(mkdir("d", 0777));
	EQ(101, run("./d"));
	/* Root executes what anybody may, and only that. */
	OK(chmod("script", 0001));
	EQ(13, run("./script"));
	OK(chmod("script", 0666));
	EQ(101, run("./script"));
}

static void case_exec_binary(void)
{
	MUST(system("cp /bin/true ./t && cp /bin/false ./f && chmod 755 t f"));
	EQ(0, run("./t"));
	EQ(1, run("./f"));
	/* Replaced by rename while nobody runs it: the new one runs. */
	OK(rename("f", "t"));
	EQ(1, run("./t"));
	/* And rewritten in place. */
	MUST(system("cat /bin/true > ./t"));
	EQ(0, run("./t"));
	int fd = file_open("t", O_RDONLY);
	pid_t pid = fork();
	if (pid == 0) {
		char *const argv[] = { (char[]){ "t" }, NULL };

		fexecve(fd, argv, environ);
		_exit(9);
	}
	child_wait(pid);
	TRUE(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
}

static void case_inotify(void)
{
	char buf[4096];
	int in = (int)MUST(inotify_init1(IN_NONBLOCK));
	unsigned seen = 0;
	ssize_t n;

	MUST(mkdir("d", 0755));
	MUST(inotify_add_watch(in, "d", IN_ALL_EVENTS));
	file_make("d/f", "x", 1);
	OK(rename("d/f", "d/g"));
	OK(chmod("d/g", 0600));
	OK(unlink("d/g"));
	while ((n = read(in, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p < buf + n;) {
			struct inotify_event *e = (void *)p;

			seen |= e->mask;
			p += sizeof(*e) + e->len;
		}
	}
	EQ(0, (IN_CREATE | IN_OPEN | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
	       IN_DELETE) &
		      ~seen);
}

static void case_poll_regular(void)
{
	struct pollfd p = { .events = POLLIN | POLLOUT };

	file_make("f", "x", 1);
	p.fd = file_open("f", O_RDWR);
	EQ(1, poll(&p, 1, 0));
	EQ(POLLIN | POLLOUT, p.revents);
}

static const struct check_case cases[] = {
	{ "fifo", case_fifo },
	{ "socket", case_socket },
	{ "datagram_socket", case_datagram_socket },
	{ "devices", case_devices },
	{ "exec", case_exec },
	{ "exec_binary", case_exec_binary },
	{ "inotify", case_inotify },
	{ "poll_regular", case_poll_regular },
};

CHECK_MAIN(cases)
