/**
 * libbpf's calls (1.1 and later), nothing else; conventions as in libc.ts. Calls that return int
 * return 0 or a descriptor, or minus the errno (libbpf 1.0: LIBBPF_STRICT_ALL), so errno need not
 * be read.
 */
const bpf = Deno.dlopen("libbpf.so.1", {
  // libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t fn);
  libbpf_set_print: { parameters: ["function"], result: "pointer" },

  // struct bpf_object *bpf_object__open_file(const char *path, const struct bpf_object_open_opts
  //   *opts);
  // NULL with errno on failure.
  bpf_object__open_file: { parameters: ["buffer", "pointer"], result: "pointer" },
  // int bpf_object__load(struct bpf_object *obj);
  bpf_object__load: { parameters: ["pointer"], result: "i32" },
  // void bpf_object__close(struct bpf_object *object);
  bpf_object__close: { parameters: ["pointer"], result: "void" },
  // struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *obj, const char *name);
  bpf_object__find_map_by_name: { parameters: ["pointer", "buffer"], result: "pointer" },
  // struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *obj, const char
  //   *name);
  bpf_object__find_program_by_name: { parameters: ["pointer", "buffer"], result: "pointer" },
  // int bpf_map__set_pin_path(struct bpf_map *map, const char *path);
  bpf_map__set_pin_path: { parameters: ["pointer", "buffer"], result: "i32" },
  // int bpf_map__fd(const struct bpf_map *map);
  bpf_map__fd: { parameters: ["pointer"], result: "i32" },
  // enum bpf_map_type bpf_map__type(const struct bpf_map *map);
  bpf_map__type: { parameters: ["pointer"], result: "u32" },
  // __u32 bpf_map__key_size(const struct bpf_map *map);
  bpf_map__key_size: { parameters: ["pointer"], result: "u32" },
  // __u32 bpf_map__value_size(const struct bpf_map *map);
  bpf_map__value_size: { parameters: ["pointer"], result: "u32" },
  // __u32 bpf_map__max_entries(const struct bpf_map *map);
  bpf_map__max_entries: { parameters: ["pointer"], result: "u32" },
  // __u32 bpf_map__map_flags(const struct bpf_map *map);
  bpf_map__map_flags: { parameters: ["pointer"], result: "u32" },
  // int bpf_program__fd(const struct bpf_program *prog);
  bpf_program__fd: { parameters: ["pointer"], result: "i32" },

  // int bpf_map_lookup_elem(int fd, const void *key, void *value);
  bpf_map_lookup_elem: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int bpf_map_lookup_and_delete_elem(int fd, const void *key, void *value);
  bpf_map_lookup_and_delete_elem: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);
  bpf_map_update_elem: { parameters: ["i32", "buffer", "buffer", "u64"], result: "i32" },
  // int bpf_map_delete_elem(int fd, const void *key);
  bpf_map_delete_elem: { parameters: ["i32", "buffer"], result: "i32" },
  // int bpf_map_get_next_key(int fd, const void *key, void *next_key);
  bpf_map_get_next_key: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
  //   __u32 *count, const struct bpf_map_batch_opts *opts);
  bpf_map_lookup_batch: {
    parameters: ["i32", "buffer", "buffer", "buffer", "buffer", "buffer", "pointer"],
    result: "i32",
  },

  // int bpf_link_create(int prog_fd, int target_fd, enum bpf_attach_type attach_type, const struct
  //   bpf_link_create_opts *opts);
  bpf_link_create: { parameters: ["i32", "i32", "u32", "pointer"], result: "i32" },
  // int bpf_link_update(int link_fd, int new_prog_fd, const struct bpf_link_update_opts *opts);
  bpf_link_update: { parameters: ["i32", "i32", "pointer"], result: "i32" },
  // int bpf_link_detach(int link_fd);
  bpf_link_detach: { parameters: ["i32"], result: "i32" },
  // int bpf_prog_query(int target_fd, enum bpf_attach_type type, __u32 query_flags, __u32
  //   *attach_flags, __u32 *prog_ids, __u32 *prog_cnt);
  bpf_prog_query: {
    parameters: ["i32", "u32", "u32", "pointer", "buffer", "buffer"],
    result: "i32",
  },
  // int bpf_obj_pin(int fd, const char *pathname);
  bpf_obj_pin: { parameters: ["i32", "buffer"], result: "i32" },
  // int bpf_obj_get(const char *pathname);
  bpf_obj_get: { parameters: ["buffer"], result: "i32" },
  // int bpf_obj_get_info_by_fd(int bpf_fd, void *info, __u32 *info_len);
  bpf_obj_get_info_by_fd: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
});

export const libbpf = bpf.symbols;
