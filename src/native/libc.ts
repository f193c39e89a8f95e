/**
 * The C library's calls, nothing else. Above each symbol stands its C prototype as the headers have
 * it (prototypes_test.ts compiles them); below, what the prototype cannot say. All set errno when
 * they return -1, unless noted. None blocks, unless noted: a `nonblocking` FFI call costs 46 µs and
 * loses errno.
 */
const library = Deno.dlopen("libc.so.6", {
  // int *__errno_location(void);
  __errno_location: { parameters: [], result: "pointer" },
  // void abort(void);
  abort: { parameters: [], result: "void" },
  // int malloc_trim(size_t pad);
  // The GNU C library's own. Says whether memory was given back.
  malloc_trim: { parameters: ["usize"], result: "i32" },

  // int open(const char *path, int flags, ...);
  open: { parameters: ["buffer", "i32"], result: "i32" },
  // ssize_t readlink(const char *path, char *buf, size_t size);
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  // int statx(int dirfd, const char *path, int flags, unsigned int mask, struct statx *buf);
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  // int flock(int fd, int operation);
  // Without LOCK_NB it blocks.
  flock: { parameters: ["i32", "i32"], result: "i32" },
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count);
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  // ssize_t write(int fd, const void *buf, size_t count);
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },

  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int bind(int fd, const struct sockaddr *addr, socklen_t len);
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int listen(int fd, int backlog);
  listen: { parameters: ["i32", "i32"], result: "i32" },
  // int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  // int connect(int fd, const struct sockaddr *addr, socklen_t len);
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int getsockname(int fd, struct sockaddr *addr, socklen_t *len);
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t len);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // int getsockopt(int fd, int level, int name, void *value, socklen_t *len);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int shutdown(int fd, int how);
  shutdown: { parameters: ["i32", "i32"], result: "i32" },

  // The lengths are in the message, so no call needs a bigint. The results are taken as i32, which
  // spares one bigint a call: no message here is larger than a few hundred KiB.
  // ssize_t recvmsg(int fd, struct msghdr *message, int flags);
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t sendmsg(int fd, const struct msghdr *message, int flags);
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },

  // ssize_t recv(int fd, void *buf, size_t len, int flags);
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  // ssize_t send(int fd, const void *buf, size_t len, int flags);
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },

  // int epoll_create1(int flags);
  epoll_create1: { parameters: ["i32"], result: "i32" },
  // int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);
  // Blocks the calling thread, as a relay worker is meant to.
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  // int eventfd(unsigned int initval, int flags);
  eventfd: { parameters: ["u32", "i32"], result: "i32" },

  // int ioctl(int fd, unsigned long request, ...);
  ioctl: { parameters: ["i32", "u64"], result: "i32" },
  // int fcntl(int fd, int cmd, ...);
  fcntl: { parameters: ["i32", "i32", "u64"], result: "i32" },
  // int prctl(int option, ...);
  prctl: { parameters: ["i32", "u64"], result: "i32" },
  // int setns(int fd, int nstype);
  setns: { parameters: ["i32", "i32"], result: "i32" },
  // int getifaddrs(struct ifaddrs **list);
  getifaddrs: { parameters: ["buffer"], result: "i32" },
  // void freeifaddrs(struct ifaddrs *list);
  freeifaddrs: { parameters: ["pointer"], result: "void" },

  // int getrlimit(__rlimit_resource_t resource, struct rlimit *rlim);
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  // int setrlimit(__rlimit_resource_t resource, const struct rlimit *rlim);
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },

  // int clock_gettime(clockid_t clock_id, struct timespec *tp);
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },

  // int mount(const char *source, const char *target, const char *fstype, unsigned long flags,
  //   const void *data);
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "buffer"], result: "i32" },
  // int umount2(const char *target, int flags);
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  // int statfs(const char *path, struct statfs *buf);
  statfs: { parameters: ["buffer", "buffer"], result: "i32" },
});

export const libc = library.symbols;

const encoder = new TextEncoder();

/** `text` as a C string. Throws a TypeError when it holds a NUL, which C would take for its end. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new TypeError("cannot pass a text with a NUL character to C");
  }
  return encoder.encode(text + "\0");
}
