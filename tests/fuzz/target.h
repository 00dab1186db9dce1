/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What libFuzzer calls in a target.
 */
#ifndef UMBRA_TESTS_FUZZ_TARGET_H
#define UMBRA_TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
