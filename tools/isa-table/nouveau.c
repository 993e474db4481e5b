/*
 * A Jetson Orin's GPU for Mesa's NVK to compile for, made of a library to preload. It computes nothing.
 *
 *   cc -shared -fPIC -o libnouveau.so nouveau.c
 *   LD_PRELOAD=./libnouveau.so program
 *
 * It stands between NVK and libdrm: the one device there is a render node of the nouveau driver, and every request to it
 * succeeds at once. Buffers are pages of one sparse file. What is written to the standard error, NVK's assembly, goes out in
 * large pieces.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    CHIPSET = 0x17b, /* GA10B: SM87 */
    NODE_PRIMARY = 0,
    NODE_RENDER = 2,
    BUS_PCI = 0,
};

static char node[] = "/dev/dri/renderD128";
static const uint64_t SPACE = 1ull << 40; /* of the file that buffers lie in */

/* libdrm's xf86drm.h. */
struct bus_info { uint16_t domain; uint8_t bus, dev, func; };
struct device_info { uint16_t vendor, device, subvendor, subdevice; uint8_t revision; };
struct device {
    char **nodes;
    int available;
    int bus;
    struct bus_info *bus_info;
    struct device_info *device_info;
};

static struct bus_info bus_info = {.bus = 1};
static struct device_info device_info = {.vendor = 0x10de};
static char *nodes[3] = {node, node, node};
static struct device device = {nodes, 1 << NODE_PRIMARY | 1 << NODE_RENDER, BUS_PCI, &bus_info, &device_info};

int drmGetDevices2(uint32_t flags, struct device **devices, int most)
{
    (void)flags;
    if (devices && most > 0) devices[0] = &device;
    return 1;
}

int drmGetDevice2(int fd, uint32_t flags, struct device **found)
{
    (void)fd, (void)flags;
    *found = &device;
    return 0;
}

int drmGetDeviceFromDevId(dev_t id, uint32_t flags, struct device **found)
{
    return drmGetDevice2((int)id, flags, found);
}

void drmFreeDevice(struct device **freed) { *freed = NULL; }
void drmFreeDevices(struct device **devices, int count) { (void)devices, (void)count; }

/* The kernel's drm.h and nouveau_drm.h. */
struct version { int major, minor, patch; size_t name_length; char *name; size_t rest[4]; };
struct two { uint64_t key, value; };
struct gem_new { uint32_t handle, domain; uint64_t size, offset, map_handle; uint32_t tiles[2], channel, align; };
struct channel_new { uint32_t memory[2]; int32_t channel; };
struct nvif { uint8_t version, type, pad[6]; uint64_t token, object; };
struct classes { struct nvif header; uint8_t version, count, pad[6]; struct { int32_t class; int16_t least, most; } list[16]; };
struct chip {
    struct nvif header;
    uint8_t version, method, pad[6];
    uint8_t info_version, platform;
    uint16_t chipset;
    uint8_t revision, family, pad2[2];
    uint64_t ram_size, ram_user;
};

static int nouveau_nvif(struct nvif *request)
{
    enum { CLASSES = 1, METHOD = 4, PCIE = 3 };
    static const int32_t classes[] = {0xa140, 0xc6b5, 0x902d, 0xc797, 0xc7c0}; /* Ampere's */
    if (request->type == CLASSES) {
        struct classes *c = (struct classes *)request;
        for (unsigned i = 0; i < sizeof classes / sizeof *classes && i < c->count; i++) {
            c->list[i].class = classes[i];
            c->list[i].least = c->list[i].most = -1;
        }
    } else if (request->type == METHOD) {
        struct chip *chip = (struct chip *)request;
        chip->platform = PCIE;
        chip->chipset = CHIPSET;
        chip->ram_user = 3ull << 30;
    }
    return 0;
}

static int nouveau_parameter(struct two *parameter)
{
    enum { PCI_DEVICE = 4, GRAPH_UNITS = 13 };
    switch (parameter->key) {
    case PCI_DEVICE: parameter->value = 0; return 0;
    case GRAPH_UNITS: parameter->value = 0x01000101; return 0;
    default: errno = EINVAL; return -1;
    }
}

static int new_buffer(struct gem_new *new)
{
    static uint32_t handles;
    static uint64_t used = 1 << 20;
    new->handle = ++handles;
    new->offset = new->map_handle = used;
    used += (new->size + 0xffff) & ~0xffffull;
    if (used <= SPACE) return 0;
    errno = ENOMEM;
    return -1;
}

int drmIoctl(int fd, unsigned long request, void *argument)
{
    enum {
        VERSION = 0x00, GET_CAP = 0x0c, SYNCOBJ_CREATE = 0xbf,
        GETPARAM = 0x40, CHANNEL_ALLOC = 0x42, NVIF = 0x47, ZCULL_INFO = 0x53, GEM_NEW = 0x80,
    };
    (void)fd;
    switch (request & 0xff) {
    case VERSION: {
        struct version *v = argument;
        v->major = 1, v->minor = 3, v->patch = 1;
        if (v->name) memcpy(v->name, "nouveau", v->name_length < 7 ? v->name_length : 7);
        v->name_length = 7;
        return 0;
    }
    case GET_CAP: ((struct two *)argument)->value = 1; return 0;
    case SYNCOBJ_CREATE: *(uint32_t *)argument = 1; return 0;
    case GETPARAM: return nouveau_parameter(argument);
    case CHANNEL_ALLOC: ((struct channel_new *)argument)->channel = 0; return 0;
    case NVIF: return nouveau_nvif(argument);
    case ZCULL_INFO: errno = EINVAL; return -1;
    case GEM_NEW: return new_buffer(argument);
    default: return 0;
    }
}

int open64(const char *path, int flags, int mode)
{
    if (strcmp(path, node) != 0) return (int)syscall(SYS_openat, -100, path, flags, mode);
    int fd = memfd_create("nouveau", MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, (off_t)SPACE) != 0) { close(fd); return -1; }
    return fd;
}

int stat64(const char *restrict path, struct stat64 *restrict found)
{
    if (strcmp(path, node) != 0) return fstatat64(-100, path, found, 0);
    memset(found, 0, sizeof *found);
    found->st_mode = S_IFCHR | 0666;
    found->st_rdev = makedev(226, 128);
    return 0;
}

/* NVK prints word by word. What is held goes out in whole lines: what others print there has to come between two. */
static char held[1 << 16];
static size_t length;

static void put(size_t count)
{
    for (size_t at = 0; at < count;) {
        ssize_t n = syscall(SYS_write, 2, held + at, count - at);
        if (n <= 0) break;
        at += (size_t)n;
    }
    length -= count;
    memmove(held, held + count, length);
}

__attribute__((destructor)) static void finish(void) { put(length); }

ssize_t write(int fd, const void *bytes, size_t count)
{
    if (fd != 2 || count > sizeof held) return syscall(SYS_write, fd, bytes, count);
    if (length + count > sizeof held) {
        const char *end = memrchr(held, '\n', length);
        put(end ? (size_t)(end - held) + 1 : length);
        if (length + count > sizeof held) put(length);
    }
    memcpy(held + length, bytes, count);
    length += count;
    return (ssize_t)count;
}

static ssize_t print(void *cookie, const char *bytes, size_t count)
{
    (void)cookie;
    return write(2, bytes, count);
}

/* C's own stream writes past the function above, and would come out in the midst of what is held. */
__attribute__((constructor)) static void begin(void)
{
    FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = print});
    if (stream && setvbuf(stream, NULL, _IOLBF, 1 << 16) == 0) stderr = stream;
}
