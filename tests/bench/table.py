# SPDX-License-Identifier: BSD-3-Clause
"""Prints medians, ratios and goals."""

import statistics

import targets
from rows import cpu_us
from targets import Skip

def number(value):
    if value is None:
        return '-'
    if value >= 1000:
        return '{:,.0f}'.format(value)
    if value >= 100:
        return '%.0f' % value
    if value >= 10:
        return '%.1f' % value
    if value >= 0.1:
        return '%.2f' % value
    return '%.4f' % value


def print_table(head, lines):
    widths = [max(len(line[i]) for line in [head] + lines) for i in range(len(head))]
    for n, line in enumerate([head] + lines):
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w)
                 for i, (cell, w) in enumerate(zip(line, widths))]
        print('| ' + ' | '.join(cells) + ' |')
        if n == 0:
            print('|' + '|'.join('-' * (w + 1) + ('-' if i == 0 else ':')
                                 for i, w in enumerate(widths)) + '|')
    print()


def print_medians(rows, names, placement, medians):
    lines = []
    for row in rows:
        cells = [number(medians.get((placement, row.name, name))) for name in names]
        lines.append(['%s, %s' % (row.title, row.unit)] + cells)
    print_table([placement + ': medians'] + names, lines)


def pairs(names, base):
    """What is divided by what: umbrafs by each peer; without it, each peer by the base."""
    ours = [n for n in names if n.split(':')[0] == 'umbrafs']
    peers = [n for n in names if n not in ours]
    if ours:
        return [(our, peer) for our in ours for peer in peers]
    return [(name, base) for name in peers if name != base and base in peers]


def print_ratios(rows, names, placement, medians, base):
    both = pairs(names, base)
    if not both:
        return
    lines = []
    for row in rows:
        cells = []
        for over, under in both:
            a = medians.get((placement, row.name, over))
            b = medians.get((placement, row.name, under))
            cells.append('-' if a is None or not b else number(a / b))
        lines.append([row.title + ('' if row.is_more_better else ' (less is better)')] + cells)
    print_table([placement + ': ratios'] + ['%s / %s' % pair for pair in both], lines)


def print_cpu(rows, names, placement, results):
    lines = []
    for row in rows:
        if row.kind in ('ms', 'cpu', 'cpu_mbs', 'p99', 'limit', 'space', 'mib'):
            continue
        cells = []
        for name in names:
            got = results.get((placement, row.name, name))
            cells.append(number(statistics.median(cpu_us(r) for r in got)) if got else '-')
        lines.append([row.title] + cells)
    print_table([placement + ': CPU us per operation, client + server'] + names, lines)


def base_of(row, placement, medians):
    """What a goal is relative to."""
    names = targets.KERNEL if row.goal[2] == 'kernel' else [row.goal[2]]
    found = [medians[(placement, row.name, n)] for n in names if (placement, row.name, n) in medians]
    return (max(found) if row.is_more_better else min(found)) if found else None


def goal_line(row, placement, medians):
    value = medians.get((placement, row.name, 'umbrafs'))
    if row.goal is None or value is None:
        return None
    comparison, factor = row.goal[:2]
    limit = factor
    text = '%s %s %s' % (comparison, number(factor), row.unit)
    if len(row.goal) == 3:
        base = base_of(row, placement, medians)
        if base is None:
            return None
        limit = factor * base
        text = '%s %g x %s' % (comparison, factor, row.goal[2])
    reached = value >= limit if comparison == '>=' else value <= limit
    return [row.title, text, number(limit), number(value), 'yes' if reached else 'NO']


def print_goals(rows, placement, medians):
    lines = [line for line in (goal_line(row, placement, medians) for row in rows) if line]
    if lines:
        print_table([placement + ': goals', 'goal', 'that is', 'umbrafs', 'reached'], lines)


def print_all(args, rows, names, placements, results, medians, reasons):
    for placement in placements:
        print_medians(rows, names, placement, medians)
        print_ratios(rows, names, placement, medians, args.base)
        if args.cpu:
            print_cpu(rows, names, placement, results)
        print_goals(rows, placement, medians)
    for key, why in sorted(reasons.items()):
        what = 'skipped' if isinstance(why, Skip) else 'FAILED'
        if args.verbose or what == 'FAILED':
            print('%s: %s %s on %s: %s' % ((what,) + key + (why,)))
    for key in sorted(results):
        for note in sorted({r['note'] for r in results[key] if 'note' in r}):
            print('note: %s %s on %s: %s' % (key + (note,)))


def as_json(args, rows, results, medians, reasons, skipped):
    return {
        'scale': args.scale,
        'reps': args.reps,
        'skipped_targets': skipped,
        'rows': {r.name: {'title': r.title, 'unit': r.unit} for r in rows},
        'measurements': [
            {'placement': p, 'row': r, 'target': t, 'median': medians.get((p, r, t)), 'runs': runs}
            for (p, r, t), runs in sorted(results.items())],
        'not_measured': [{'placement': p, 'row': r, 'target': t, 'why': str(why)}
                         for (p, r, t), why in sorted(reasons.items())],
    }
