/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages that have just been copied are put into the page tables while the next message is under way: of each the fault would cost more than the copy. */
#ifndef UMBRA_CLIENT_PREFAULT_H
#define UMBRA_CLIENT_PREFAULT_H

#include <stdint.h>

/* Addresses of a mapping, to be stored to: they take the place of those that were named before. Under client_lock. */
void prefault_set(uintptr_t lo, uintptr_t hi);
/* Does what there is to be done. Takes client_lock for itself. */
void prefault_run(void);

#endif
