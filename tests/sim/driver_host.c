/* A host that drives the simulated accelerator with the generated C driver. Standard input and output are connected
 * to the simulator (sim/server.h); results go to a file, messages to standard error.
 *
 * host PROGRAM WEIGHTS POOL LENGTHS X OUT: runs the sequences of X, prints results and status codes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bert_accel.h"

enum { PROGRAM_AT = 0x10000, WEIGHTS_AT = 0x1000000, INPUT_AT = 0x4000000, OUTPUT_AT = 0x5000000 };

static void answer(char *text, int size) {
    fflush(stdout);
    if (!fgets(text, size, stdin) || text[0] != 'o') {
        fprintf(stderr, "simulator: %s\n", text);
        exit(2);
    }
}

static uint32_t bus_read(void *context, uint32_t offset) {
    char text[200];
    uint32_t value = 0;
    ++*(unsigned *)context;
    printf("read %" PRIu32 "\n", offset);
    answer(text, sizeof text);
    sscanf(text, "ok %" SCNu32, &value);
    return value;
}

static void bus_write(void *context, uint32_t offset, uint32_t value) {
    char text[200];
    ++*(unsigned *)context;
    printf("write %" PRIu32 " %" PRIu32 "\n", offset, value);
    answer(text, sizeof text);
}

static uint8_t *load(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = (uint8_t *)malloc(1 << 22);
    if (!file || !bytes) exit(3);
    *size = fread(bytes, 1, 1 << 22, file);
    fclose(file);
    return bytes;
}

static void allocate(uint64_t address, size_t size) {
    char text[200];
    printf("allocate %" PRIu64 " %zu\n", address, size);
    answer(text, sizeof text);
}

static void put(uint64_t address, const uint8_t *bytes, size_t size) {
    char text[200];
    printf("put %" PRIu64 " %zu\n", address, size);
    fwrite(bytes, 1, size, stdout);
    answer(text, sizeof text);
}

static void get(uint64_t address, uint8_t *bytes, size_t size) {
    char text[200];
    printf("get %" PRIu64 " %zu\n", address, size);
    answer(text, sizeof text);
    if (fread(bytes, 1, size, stdin) != size) exit(4);
}

int main(int argc, char **argv) {
    size_t program_size, weights_size, pool_size, lengths_size, x_size;
    unsigned accesses = 0;
    if (argc != 7) return 5;
    uint8_t *program = load(argv[1], &program_size), *weights = load(argv[2], &weights_size);
    uint32_t *pool = (uint32_t *)load(argv[3], &pool_size), *lengths = (uint32_t *)load(argv[4], &lengths_size);
    int8_t *x = (int8_t *)load(argv[5], &x_size);
    const uint32_t sequences = (uint32_t)(lengths_size / 4);

    struct bert_accel accel;
    const struct bert_accel_bus bus = {bus_read, bus_write, &accesses};
    const enum bert_accel_result found = bert_accel_init(&accel, bus);
    fprintf(stderr, "init %d\n", found);
    if (found != BERT_ACCEL_OK) return 0;

    allocate(PROGRAM_AT, program_size);
    allocate(WEIGHTS_AT, weights_size);
    allocate(INPUT_AT, sequences * BERT_ACCEL_INPUT_STRIDE);
    allocate(OUTPUT_AT, sequences * BERT_ACCEL_OUTPUT_STRIDE);
    put(PROGRAM_AT, program, program_size);
    put(WEIGHTS_AT, weights, weights_size);
    for (uint32_t i = 0; i < sequences; ++i) {
        uint8_t input[BERT_ACCEL_INPUT_BYTES];
        bert_accel_pack(input, x + i * BERT_ACCEL_TOKENS * BERT_ACCEL_HIDDEN);
        put(INPUT_AT + i * BERT_ACCEL_INPUT_STRIDE, input, sizeof input);
    }

    struct bert_accel_model model = bert_accel_model(PROGRAM_AT + 64, WEIGHTS_AT, pool);
    fprintf(stderr, "load %d\n", bert_accel_load(&accel, &model));
    model.program = PROGRAM_AT;
    fprintf(stderr, "load %d\n", bert_accel_load(&accel, &model));
    const uint32_t first = lengths[0];
    lengths[0] = BERT_ACCEL_TOKENS + 1;
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, sequences));
    lengths[0] = first;
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, 0));
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, sequences));
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, sequences));
    fprintf(stderr, "wait %d\n", bert_accel_wait(&accel, 2));
    fprintf(stderr, "wait %d\n", bert_accel_wait(&accel, 1000000));
    fprintf(stderr, "status %" PRIu32 " cycles %" PRIu32 "\n", bert_accel_status(&accel), bert_accel_cycles(&accel));

    FILE *out = fopen(argv[6], "wb");
    for (uint32_t i = 0; i < sequences; ++i) {
        uint8_t output[BERT_ACCEL_OUTPUT_BYTES];
        int8_t hidden[BERT_ACCEL_TOKENS * BERT_ACCEL_HIDDEN];
        get(OUTPUT_AT + i * BERT_ACCEL_OUTPUT_STRIDE, output, sizeof output);
        bert_accel_unpack(hidden, output);
        fwrite(hidden, 1, sizeof hidden, out);
    }
    fclose(out);

    /* Weights that are none: an error, its text, and no need for a reset. */
    weights[3] ^= 0xff;
    put(WEIGHTS_AT, weights, 16);
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, sequences));
    fprintf(stderr, "wait %d\n", bert_accel_wait(&accel, 1000000));
    fprintf(stderr, "status %s\n", bert_accel_status_text(bert_accel_status(&accel)));
    weights[3] ^= 0xff;
    put(WEIGHTS_AT, weights, 16);
    fprintf(stderr, "start %d\n", bert_accel_start(&accel, INPUT_AT, OUTPUT_AT, lengths, sequences));
    fprintf(stderr, "wait %d: %s\n", bert_accel_wait(&accel, 1000000), bert_accel_result_text(BERT_ACCEL_OK));
    return 0;
}
