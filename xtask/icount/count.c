/*
 * A plugin for QEMU 10's TCG (plugin interface version 4): counts executed x86 instructions by
 * address half and by whether a VMRUN is in force, and VMRUNs themselves. It appends a line
 *
 *     HOST_KERNEL HOST_USER GUEST_KERNEL GUEST_USER VMRUNS
 *
 * to the file named by its option counts= at each marker instruction, nopl 0x524b(%rax), with the
 * option vmrun=first just before the first VMRUN too, and at QEMU's end. For one CPU (-smp 1, thread=single).
 *
 * A guest is in force from VMRUN until the instruction behind that VMRUN is executed: SVM resumes
 * the host there (AMD APM vol. 2, 15.6 "#VMEXIT").
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* QEMU's plugin interface, as far as it is used here (docs/devel/tcg-plugins). */
#define EXPORT __attribute__((visibility("default")))
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
struct qemu_info_t;
typedef uint64_t qemu_plugin_id_t;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;
enum { CALLBACK_USES_NO_REGISTERS = 0 };
enum { INLINE_ADD_U64 = 0 };
typedef void (*translate_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*execute_callback)(unsigned, void *);
typedef void (*exit_callback)(qemu_plugin_id_t, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translate_callback);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_callback, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, execute_callback, int,
                                            void *);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int,
                                                         qemu_plugin_u64, uint64_t);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
uint64_t qemu_plugin_u64_sum(qemu_plugin_u64);

EXPORT int qemu_plugin_version = 4;

static const uint8_t vmrun_code[] = {0x0f, 0x01, 0xd8};
static const uint8_t marker_code[] = {0x0f, 0x1f, 0x80, 0x4b, 0x52, 0x00, 0x00};

enum half { KERNEL, USER, HALVES };
static qemu_plugin_u64 executed[HALVES];
static uint64_t settled[HALVES];       /* of `executed`, what `sums` has already */
static uint64_t sums[2][HALVES];       /* [guest in force] */
static bool in_guest;
static uint64_t vmruns;
static bool tell_first_vmrun;
static FILE *out;

/* Addresses behind the VMRUNs seen so far: a kernel has a handful. */
enum { MAX_RESUMES = 16 };
static uint64_t resumes[MAX_RESUMES];
static unsigned resume_count;

static void settle(void)
{
    for (int half = 0; half < HALVES; half++) {
        uint64_t now = qemu_plugin_u64_sum(executed[half]);
        sums[in_guest][half] += now - settled[half];
        settled[half] = now;
    }
}

static void write_counts(void)
{
    settle();
    fprintf(out, "%llu %llu %llu %llu %llu\n", (unsigned long long)sums[false][KERNEL],
            (unsigned long long)sums[false][USER], (unsigned long long)sums[true][KERNEL],
            (unsigned long long)sums[true][USER], (unsigned long long)vmruns);
    fflush(out);
}

static void on_vmrun(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    if (tell_first_vmrun && vmruns == 0)
        write_counts();
    settle();
    in_guest = true;
    vmruns++;
}

static void on_resume(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    if (in_guest) {
        settle();
        in_guest = false;
    }
}

static void on_marker(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    write_counts();
}

static void on_exit(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    write_counts();
}

static bool is_resume(uint64_t address)
{
    for (unsigned i = 0; i < resume_count; i++)
        if (resumes[i] == address)
            return true;
    return false;
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        uint8_t code[16];
        size_t length = qemu_plugin_insn_data(insn, code, sizeof code);

        if (is_resume(address))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_resume, CALLBACK_USES_NO_REGISTERS,
                                                   NULL);
        enum half half = address >> 63 ? KERNEL : USER;
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD_U64, executed[half],
                                                            1);
        if (length == sizeof vmrun_code && !memcmp(code, vmrun_code, length)) {
            uint64_t next = address + length;
            if (!is_resume(next) && resume_count < MAX_RESUMES)
                resumes[resume_count++] = next;
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_vmrun, CALLBACK_USES_NO_REGISTERS,
                                                   NULL);
        }
        if (length == sizeof marker_code && !memcmp(code, marker_code, length))
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_marker, CALLBACK_USES_NO_REGISTERS,
                                                   NULL);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc,
                               char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "counts=", 7))
            out = fopen(argv[i] + 7, "w");
        else if (!strcmp(argv[i], "vmrun=first"))
            tell_first_vmrun = true;
    if (!out) {
        fprintf(stderr, "count plugin: cannot write the file named by the option counts=\n");
        return -1;
    }
    struct qemu_plugin_scoreboard *score = qemu_plugin_scoreboard_new(HALVES * sizeof(uint64_t));
    for (int half = 0; half < HALVES; half++)
        executed[half] = (qemu_plugin_u64){score, half * sizeof(uint64_t)};
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
