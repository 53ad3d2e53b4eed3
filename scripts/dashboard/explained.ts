/** The plan in force in words: what was decided and why, how real frames compare with it, and what the last look for a better one found. Pure. */
import type { StatusReport } from '../../broker/messages.js';
import { predictionText } from '../links-text.js';
import { PROGRAM } from '../package-root.js';
import { printable } from '../printable.js';
import { planText } from '../report.js';
import { wrapText } from '../table.js';

/** Safe lines of at most about `width` columns. */
export function explained(report: StatusReport | undefined, name: string, width: number): readonly string[] {
  const deployment = report?.deployments.find((one) => one.name === name);
  if (deployment === undefined) return ['Nothing is deployed.'];
  const { plan, outlook, objective, why } = deployment;
  if (plan === null)
    return [`There is no plan yet: ${deployment.state}${why === '' ? '' : `, ${why}`}`]
      .flatMap((line) => line.split('\n'))
      .map((line) => printable(line));
  return [
    `planned for: ${objective || 'what the plan file says'}`,
    ...planText(plan, width).split('\n'),
    '',
    ...predictionText(deployment, width),
    ...(outlook === '' ? [] : wrapText(`looked for a better plan: ${outlook}`, width, '  ')),
    '',
    `Other planners beside it, and what would make it better: ${PROGRAM} plan MODEL --explain`,
  ].map((line) => printable(line));
}
