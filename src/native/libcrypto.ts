/** libcrypto's calls, the half of OpenSSL 3 below TLS; conventions as in libssl.ts. */
const crypto = Deno.dlopen("libcrypto.so.3", {
  // unsigned long ERR_get_error(void);
  ERR_get_error: { parameters: [], result: "u64" },
  // const char *ERR_reason_error_string(unsigned long e);
  ERR_reason_error_string: { parameters: ["u64"], result: "pointer" },

  // BIO *BIO_new(const BIO_METHOD *type);
  BIO_new: { parameters: ["pointer"], result: "pointer" },
  // const BIO_METHOD *BIO_s_mem(void);
  BIO_s_mem: { parameters: [], result: "pointer" },
  // int BIO_up_ref(BIO *bio);
  BIO_up_ref: { parameters: ["pointer"], result: "i32" },
  // long BIO_ctrl(BIO *bio, int cmd, long larg, void *parg);
  BIO_ctrl: { parameters: ["pointer", "i32", "i64", "buffer"], result: "i64" },
  // size_t BIO_ctrl_pending(BIO *bio);
  // Taken as i32, which spares a bigint a call: no buffer here is larger than a few hundred KiB.
  BIO_ctrl_pending: { parameters: ["pointer"], result: "i32" },

  // X509 *d2i_X509(X509 **px, const unsigned char **in, long len);
  d2i_X509: { parameters: ["pointer", "buffer", "i64"], result: "pointer" },
  // void X509_free(X509 *cert);
  X509_free: { parameters: ["pointer"], result: "void" },
  // int X509_STORE_add_cert(X509_STORE *store, X509 *cert);
  // Takes a reference of its own.
  X509_STORE_add_cert: { parameters: ["pointer", "pointer"], result: "i32" },
  // int X509_VERIFY_PARAM_set_flags(X509_VERIFY_PARAM *param, unsigned long flags);
  X509_VERIFY_PARAM_set_flags: { parameters: ["pointer", "u64"], result: "i32" },
  // X509 *X509_STORE_CTX_get0_cert(const X509_STORE_CTX *ctx);
  X509_STORE_CTX_get0_cert: { parameters: ["pointer"], result: "pointer" },
  // void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *ctx, int idx);
  X509_STORE_CTX_get_ex_data: { parameters: ["pointer", "i32"], result: "pointer" },
  // int X509_verify_cert(X509_STORE_CTX *ctx);
  X509_verify_cert: { parameters: ["pointer"], result: "i32" },
  // X509_STORE_CTX *X509_STORE_CTX_new(void);
  X509_STORE_CTX_new: { parameters: [], result: "pointer" },
  // void X509_STORE_CTX_free(X509_STORE_CTX *ctx);
  X509_STORE_CTX_free: { parameters: ["pointer"], result: "void" },
  // int X509_STORE_CTX_init(X509_STORE_CTX *ctx, X509_STORE *store, X509 *leaf, struct
  //   stack_st_X509 *others);
  // Takes no reference to any of the three.
  X509_STORE_CTX_init: { parameters: ["pointer", "pointer", "pointer", "pointer"], result: "i32" },
  // int X509_STORE_CTX_set_default(X509_STORE_CTX *ctx, const char *name);
  X509_STORE_CTX_set_default: { parameters: ["pointer", "buffer"], result: "i32" },
  // X509_VERIFY_PARAM *X509_STORE_CTX_get0_param(const X509_STORE_CTX *ctx);
  X509_STORE_CTX_get0_param: { parameters: ["pointer"], result: "pointer" },
  // int X509_VERIFY_PARAM_set1(X509_VERIFY_PARAM *to, const X509_VERIFY_PARAM *from);
  X509_VERIFY_PARAM_set1: { parameters: ["pointer", "pointer"], result: "i32" },
  // void X509_VERIFY_PARAM_set_auth_level(X509_VERIFY_PARAM *param, int level);
  X509_VERIFY_PARAM_set_auth_level: { parameters: ["pointer", "i32"], result: "void" },
  // int X509_STORE_CTX_get_error(const X509_STORE_CTX *ctx);
  X509_STORE_CTX_get_error: { parameters: ["pointer"], result: "i32" },
  // int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX *ctx);
  X509_STORE_CTX_get_error_depth: { parameters: ["pointer"], result: "i32" },
  // int X509_digest(const X509 *data, const EVP_MD *type, unsigned char *md, unsigned int *len);
  X509_digest: { parameters: ["pointer", "pointer", "buffer", "buffer"], result: "i32" },
  // const EVP_MD *EVP_sha256(void);
  EVP_sha256: { parameters: [], result: "pointer" },
  // const char *X509_verify_cert_error_string(long n);
  X509_verify_cert_error_string: { parameters: ["i64"], result: "pointer" },

  // void *X509_get_ext_d2i(const X509 *cert, int nid, int *crit, int *idx);
  // The caller frees the result by its type; `crit` gets -1 for absent, -2 for more than one.
  X509_get_ext_d2i: { parameters: ["pointer", "i32", "buffer", "pointer"], result: "pointer" },
  // uint32_t X509_get_extension_flags(X509 *cert);
  X509_get_extension_flags: { parameters: ["pointer"], result: "u32" },
  // uint32_t X509_get_key_usage(X509 *cert);
  X509_get_key_usage: { parameters: ["pointer"], result: "u32" },
  // uint32_t X509_get_extended_key_usage(X509 *cert);
  X509_get_extended_key_usage: { parameters: ["pointer"], result: "u32" },
  // int X509_get_ext_by_NID(const X509 *cert, int nid, int lastpos);
  X509_get_ext_by_NID: { parameters: ["pointer", "i32", "i32"], result: "i32" },
  // X509_EXTENSION *X509_get_ext(const X509 *cert, int loc);
  X509_get_ext: { parameters: ["pointer", "i32"], result: "pointer" },
  // ASN1_OCTET_STRING *X509_EXTENSION_get_data(X509_EXTENSION *ex);
  X509_EXTENSION_get_data: { parameters: ["pointer"], result: "pointer" },
  // int X509_EXTENSION_get_critical(const X509_EXTENSION *ex);
  X509_EXTENSION_get_critical: { parameters: ["pointer"], result: "i32" },
  // const ASN1_INTEGER *X509_get0_serialNumber(const X509 *x);
  // An ASN1_STRING: the magnitude, big-endian.
  X509_get0_serialNumber: { parameters: ["pointer"], result: "pointer" },
  // const ASN1_TIME *X509_get0_notAfter(const X509 *x);
  X509_get0_notAfter: { parameters: ["pointer"], result: "pointer" },
  // int ASN1_TIME_diff(int *pday, int *psec, const ASN1_TIME *from, const ASN1_TIME *to);
  // NULL is now; both results have the sign of the difference.
  ASN1_TIME_diff: { parameters: ["buffer", "buffer", "pointer", "pointer"], result: "i32" },
  // X509_NAME *X509_get_subject_name(const X509 *cert);
  X509_get_subject_name: { parameters: ["pointer"], result: "pointer" },
  // int X509_NAME_entry_count(const X509_NAME *name);
  X509_NAME_entry_count: { parameters: ["pointer"], result: "i32" },

  // OPENSSL_STACK *OPENSSL_sk_new_null(void);
  OPENSSL_sk_new_null: { parameters: [], result: "pointer" },
  // int OPENSSL_sk_push(OPENSSL_STACK *stack, const void *data);
  OPENSSL_sk_push: { parameters: ["pointer", "pointer"], result: "i32" },
  // void OPENSSL_sk_free(OPENSSL_STACK *stack);
  // Leaves alone what is on it.
  OPENSSL_sk_free: { parameters: ["pointer"], result: "void" },
  // int OPENSSL_sk_num(const OPENSSL_STACK *stack);
  OPENSSL_sk_num: { parameters: ["pointer"], result: "i32" },
  // void *OPENSSL_sk_value(const OPENSSL_STACK *stack, int index);
  OPENSSL_sk_value: { parameters: ["pointer", "i32"], result: "pointer" },
  // void GENERAL_NAMES_free(GENERAL_NAMES *names);
  GENERAL_NAMES_free: { parameters: ["pointer"], result: "void" },
  // void *GENERAL_NAME_get0_value(const GENERAL_NAME *name, int *ptype);
  GENERAL_NAME_get0_value: { parameters: ["pointer", "buffer"], result: "pointer" },
  // int ASN1_STRING_length(const ASN1_STRING *text);
  ASN1_STRING_length: { parameters: ["pointer"], result: "i32" },
  // const unsigned char *ASN1_STRING_get0_data(const ASN1_STRING *text);
  ASN1_STRING_get0_data: { parameters: ["pointer"], result: "pointer" },
});

export const libcrypto = crypto.symbols;
