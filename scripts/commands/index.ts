/** Every command, in the order of `--help` and of docs/commands.md. */
import type { CommandDefinition } from '../command.js';
import { acl } from './acl.js';
import { adjust } from './adjust.js';
import { bundle } from './bundle.js';
import { cluster } from './cluster.js';
import { configCheck, configInit } from './config.js';
import { dashboard } from './dashboard.js';
import { demo } from './demo.js';
import { deploy, plan, undeploy } from './deploy.js';
import { discover } from './discover.js';
import { doctor } from './doctor.js';
import { drain } from './drain.js';
import { flash } from './flash.js';
import { gatewayInstall, gatewayUninstall } from './gateway-service.js';
import { gatewayBackup, gatewayRestore } from './gateway-state.js';
import { infer } from './infer.js';
import { inspect } from './inspect.js';
import { links } from './links.js';
import { modelsBuild, modelsList } from './models.js';
import { peers } from './peers.js';
import { agent, broker, gateway, scheduler } from './processes.js';
import { profile } from './profile.js';
import { simulate } from './simulate.js';
import { status } from './status.js';
import { trace } from './trace.js';
import { agentsApprove, agentsList, agentsRevoke, audit, enrol, tokenCreate, tokenList, tokenRevoke } from './trust.js';
import { update } from './update.js';
import { verify } from './verify.js';

export const COMMANDS: readonly CommandDefinition[] = [
  demo,
  cluster,
  gateway,
  gatewayInstall,
  gatewayUninstall,
  gatewayBackup,
  gatewayRestore,
  agent,
  broker,
  scheduler,
  configInit,
  configCheck,
  doctor,
  discover,
  deploy,
  adjust,
  undeploy,
  plan,
  profile,
  simulate,
  infer,
  dashboard,
  status,
  drain,
  trace,
  links,
  peers,
  tokenCreate,
  tokenList,
  tokenRevoke,
  enrol,
  agentsList,
  agentsApprove,
  agentsRevoke,
  audit,
  acl,
  inspect,
  verify,
  bundle,
  update,
  flash,
  modelsList,
  modelsBuild,
];

/** Summaries of the groups: commands of two words. */
export const GROUPS: Readonly<Record<string, string>> = {
  models: 'Networks built in code',
  token: 'Invitations: who may join',
  agents: 'Who has joined: agents, operators, viewers',
  config: 'The settings file',
};
