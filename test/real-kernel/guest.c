/*
 * The guest of the tests with real kernels: a static /init that speaks to /dev/liveupdate as a list tells.
 *
 * With /kho-create it makes sessions and files and hands over to /kernel and /initrd by kexec; with
 * /kho-retrieve it takes them back and says what they are. Each line that it prints begins with "@kho" and
 * goes through /dev/kmsg, so that none is torn apart by the kernel's own. docs/real-kernels.md describes
 * both lists and the lines.
 *
 * Built against the kernel's own include/uapi/linux/liveupdate.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/liveupdate.h>
#include <linux/reboot.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE 1024
#define PIECE (1 << 20)
/* Contents beyond this are not summed up: a wrong size must not take for ever. */
#define MOST_SUMMED (4ull << 30)

static int kmsg = -1;
static int device = -1;

static void say(const char *format, ...)
{
	char line[LINE];
	va_list args;

	int at = snprintf(line, sizeof(line), "<4>@kho ");
	va_start(args, format);
	at += vsnprintf(line + at, sizeof(line) - at, format, args);
	va_end(args);
	line[at++] = '\n';
	if (kmsg < 0 || write(kmsg, line, at) != at)
		(void)!write(1, line + 3, at - 3);
}

static void power_off(void)
{
	sync();
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
	for (;;)
		pause();
}

static void fail(const char *step)
{
	say("failed step=%s errno=%d", step, errno);
	power_off();
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	(void)!write(fd, text, strlen(text));
	close(fd);
}

static void set_up(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, 0);
	mount("sysfs", "/sys", "sysfs", 0, 0);
	mount("dev", "/dev", "devtmpfs", 0, 0);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, 0);
	put("/proc/sys/kernel/printk_devkmsg", "on\n");
	kmsg = open("/dev/kmsg", O_WRONLY);
	device = open("/dev/liveupdate", O_RDWR);
	say("device errno=%d", device < 0 ? errno : 0);
}

/* Names are in hex: they may hold anything but a NUL. */
static void name_of(const char *hex, __u8 *name)
{
	memset(name, 0, LIVEUPDATE_SESSION_NAME_LENGTH);
	for (int i = 0; i < LIVEUPDATE_SESSION_NAME_LENGTH - 1 && hex[2 * i] && hex[2 * i + 1]; i++) {
		char digits[3] = { hex[2 * i], hex[2 * i + 1], 0 };
		name[i] = strtoul(digits, 0, 16);
	}
}

/*
 * FNV-1a of 64 bits over little-endian words of 64 bits; the last one is filled up with zeros.
 * Not 0 and errno where it cannot be read.
 */
static int sum_up(int fd, uint64_t start, uint64_t size, uint64_t *sum)
{
	static uint64_t piece[PIECE / 8];

	*sum = 14695981039346656037ull;
	for (uint64_t at = 0; at < size;) {
		size_t want = size - at < PIECE ? size - at : PIECE;
		memset(piece, 0, sizeof(piece));
		for (size_t done = 0; done < want;) {
			ssize_t got = pread(fd, (char *)piece + done, want - done, start + at + done);
			if (got == 0)
				errno = EIO;
			if (got <= 0)
				return -1;
			done += got;
		}
		for (size_t i = 0; i < (want + 7) / 8; i++)
			*sum = (*sum ^ piece[i]) * 1099511628211ull;
		at += want;
	}
	return 0;
}

static void describe(const char *verb, const char *session, uint64_t token, int fd)
{
	struct stat st = { 0 };
	uint64_t sum;

	fstat(fd, &st);
	if ((uint64_t)st.st_size > MOST_SUMMED || sum_up(fd, 0, st.st_size, &sum))
		sum = 0;
	say("%s session=%s token=0x%llx errno=0 size=%lld pos=%lld seals=0x%x sum=%016llx", verb, session,
	    (unsigned long long)token, (long long)st.st_size, (long long)lseek(fd, 0, SEEK_CUR),
	    fcntl(fd, F_GET_SEALS), (unsigned long long)sum);
}

/* The pattern of scenarios (docs/scenarios.md): a run of bytes at every so many, each with a seed of its own. */
static void fill(uint8_t *bytes, uint64_t size, uint64_t seed, uint64_t every, uint64_t run)
{
	for (uint64_t at = 0; at < size; at += every) {
		uint64_t x = (seed + at) * 0x9E3779B97F4A7C15ull + 1;
		for (uint64_t i = at; i < size && i < at + run; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[i] = x;
		}
	}
}

static int create_session(const char *hex)
{
	struct liveupdate_ioctl_create_session create = { .size = sizeof(create) };

	name_of(hex, create.name);
	int failed = ioctl(device, LIVEUPDATE_IOCTL_CREATE_SESSION, &create);
	say("created session=%s errno=%d", hex, failed ? errno : 0);
	return failed ? -1 : create.fd;
}

struct memfd {
	unsigned long long token, size, seed, every, run;
	long long pos;
	unsigned int seals, huge;
};

static void preserve_memfd(int session, const char *hex, const struct memfd *wanted)
{
	int fd = memfd_create("kho", MFD_ALLOW_SEALING);
	uint8_t *bytes;

	if (fd < 0 || ftruncate(fd, wanted->size))
		fail("memfd");
	if (wanted->size) {
		bytes = mmap(0, wanted->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (bytes == MAP_FAILED)
			fail("mmap");
		if (wanted->huge)
			madvise(bytes, wanted->size, MADV_HUGEPAGE);
		fill(bytes, wanted->size, wanted->seed, wanted->every, wanted->run);
		munmap(bytes, wanted->size);
	}
	lseek(fd, wanted->pos, SEEK_SET);
	if (wanted->seals && fcntl(fd, F_ADD_SEALS, wanted->seals))
		fail("seals");
	struct liveupdate_session_preserve_fd preserve = { sizeof(preserve), fd, wanted->token };
	if (ioctl(session, LIVEUPDATE_SESSION_PRESERVE_FD, &preserve))
		say("preserved session=%s token=0x%llx errno=%d", hex, wanted->token, errno);
	else
		describe("preserved", hex, wanted->token, fd);
}

static void create(FILE *list)
{
	char line[LINE], hex[LINE] = "";
	struct memfd memfd;
	int session = -1;

	put("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
	while (fgets(line, sizeof(line), list)) {
		if (sscanf(line, "session %1000s", hex) == 1)
			session = create_session(hex);
		else if (sscanf(line, "memfd %llx %llu %lli %x %u %llu %llu %llu", &memfd.token, &memfd.size, &memfd.pos,
				&memfd.seals, &memfd.huge, &memfd.seed, &memfd.every, &memfd.run) == 8)
			preserve_memfd(session, hex, &memfd);
		else
			fail("list");
	}
}

/* Up to Linux 7.0 the handover is made by this; later kernels have no such file. */
static void hand_over(void)
{
	char command[4096] = "";
	int kernel = open("/kernel", O_RDONLY), initrd = open("/initrd", O_RDONLY);
	int fd = open("/proc/cmdline", O_RDONLY);

	put("/sys/kernel/debug/kho/out/finalize", "1");
	if (kernel < 0 || initrd < 0 || fd < 0 || read(fd, command, sizeof(command) - 1) < 0)
		fail("open");
	command[strcspn(command, "\n")] = 0;
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(command) + 1, command, 0))
		fail("kexec_file_load");
	say("kexec");
	reboot(LINUX_REBOOT_CMD_KEXEC);
	fail("kexec");
}

static int retrieve_session(const char *hex)
{
	struct liveupdate_ioctl_retrieve_session retrieve = { .size = sizeof(retrieve) };

	name_of(hex, retrieve.name);
	int failed = ioctl(device, LIVEUPDATE_IOCTL_RETRIEVE_SESSION, &retrieve);
	say("session session=%s errno=%d", hex, failed ? errno : 0);
	return failed ? -1 : retrieve.fd;
}

static void retrieve_file(int session, const char *hex, uint64_t token)
{
	struct liveupdate_session_retrieve_fd retrieve = { sizeof(retrieve), -1, token };

	if (ioctl(session, LIVEUPDATE_SESSION_RETRIEVE_FD, &retrieve)) {
		say("file session=%s token=0x%llx errno=%d", hex, (unsigned long long)token, errno);
		return;
	}
	describe("file", hex, token, retrieve.fd);
	close(retrieve.fd);
}

static void finish(int session, const char *hex)
{
	struct liveupdate_session_finish finish = { .size = sizeof(finish) };
	int failed = ioctl(session, LIVEUPDATE_SESSION_FINISH, &finish);

	say("finish session=%s errno=%d", hex, failed ? errno : 0);
}

/* A region of reserve_mem is of the kernel's own: its memory is read. The name is in hex. */
static void read_region(const char *hex, uint64_t address, uint64_t size)
{
	int memory = open("/dev/mem", O_RDONLY);
	uint64_t sum;

	if (size > MOST_SUMMED)
		errno = EFBIG;
	if (size > MOST_SUMMED || memory < 0 || sum_up(memory, address, size, &sum))
		say("region region=%s address=0x%llx errno=%d", hex, (unsigned long long)address, errno);
	else
		say("region region=%s address=0x%llx errno=0 size=%llu sum=%016llx", hex,
		    (unsigned long long)address, (unsigned long long)size, (unsigned long long)sum);
	if (memory >= 0)
		close(memory);
}

static void retrieve(FILE *list)
{
	char line[LINE], hex[LINE] = "", region[LINE];
	unsigned long long token, address, size;
	int session = -1;

	while (fgets(line, sizeof(line), list)) {
		if (sscanf(line, "region %1000s %llx %llu", region, &address, &size) == 3)
			read_region(region, address, size);
		else if (device >= 0 && sscanf(line, "session %1000s", hex) == 1)
			session = retrieve_session(hex);
		else if (session >= 0 && sscanf(line, "file %llx", &token) == 1)
			retrieve_file(session, hex, token);
		else if (session >= 0 && !strcmp(line, "finish\n"))
			finish(session, hex);
	}
}

/* The kernel hands on the parameters that it does not know: "wait" is a guest that never ends. */
int main(int argc, char **argv)
{
	FILE *list;

	set_up();
	for (int at = 1; at < argc; at++)
		while (!strcmp(argv[at], "wait"))
			pause();
	if ((list = fopen("/kho-create", "r"))) {
		if (device >= 0)
			create(list);
		hand_over();
	}
	if ((list = fopen("/kho-retrieve", "r")))
		retrieve(list);
	say("done");
	power_off();
}
