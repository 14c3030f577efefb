/**
 * Imports run one way: model <- adapters/adapter.ts <- conformance <- report <- cli.
 * A test stands outside the layers (nothing imports it), so it may look upwards; only the model's own tests may not.
 */
const TEST = '\\.test\\.ts$';
const OURS = '^((model|adapters|conformance|report|cli|jest|properties|scenarios|bench|scripts)/|index\\.ts$)';
const CONTRACT = '^adapters/adapter\\.ts$';
/** Packages that compute and nothing else. */
const PURE_PACKAGES = '^node_modules/(@types/)?(ts-pattern|lodash)/';
/** What host, machine and kernel ABI fix for everybody: numbers, word widths and shapes, no decision. */
const ABI = '^model/core/(abi|outcome|errno|machine|constants[^/]*|words[^/]*|types[^/]*)\\.ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Files in a cycle can be neither read nor changed one at a time.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-unresolved',
      comment: 'An import that resolves to nothing escapes every other rule here.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'model-is-pure',
      comment:
        'The specification must be readable and runnable by itself: no node API, no randomness, no target, not even a ' +
        'type of fast-check. Only ts-pattern and lodash, which compute and nothing else.',
      severity: 'error',
      from: { path: '^model/', pathNot: TEST },
      to: { pathNot: ['^model/', PURE_PACKAGES] },
    },
    {
      name: 'model-tests-see-only-the-model',
      comment: 'What a model test needs from a higher layer is not a property of the model: it belongs in properties/.',
      severity: 'error',
      from: { path: `^model/.*${TEST}` },
      to: {
        dependencyTypesNot: ['core'],
        pathNot: ['^model/', PURE_PACKAGES, '^node_modules/(fast-check|@jest/globals)/'],
      },
    },
    {
      name: 'contract-knows-only-the-model',
      comment: 'Every adapter carries what the contract imports, and an adapter may be anything.',
      severity: 'error',
      from: { path: CONTRACT },
      to: { pathNot: '^model/' },
    },
    {
      name: 'contract-carries-no-decision',
      comment:
        'The simulator imports the contract: a function of the model passed on by it would be shared all the same.',
      severity: 'error',
      from: { path: CONTRACT },
      to: { path: '^model/', pathNot: ABI, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'conformance-knows-no-target',
      comment:
        'The engine judges every target alike; knowing one would let it make exceptions. Whoever calls it chooses.',
      severity: 'error',
      from: { path: '^conformance/', pathNot: TEST },
      to: { path: OURS, pathNot: ['^model/', '^conformance/', CONTRACT] },
    },
    {
      name: 'conformance-knows-no-jest',
      comment: 'The engine runs from the command line and in other test runners too.',
      severity: 'error',
      from: { path: '^conformance/', pathNot: TEST },
      to: { path: '^node_modules/(jest|@jest/[^/]+|babel-jest|expect)/' },
    },
    {
      name: 'report-shows-and-decides-nothing',
      comment: 'A report works from verdicts alone, so the same verdicts from a file give the same report.',
      severity: 'error',
      from: { path: '^report/', pathNot: TEST },
      to: { path: OURS, pathNot: ['^model/', '^conformance/', '^report/', CONTRACT] },
    },
    {
      name: 'adapters-stand-alone',
      comment:
        'Two targets that share code share its bugs, and then agree for the wrong reason. What all of them need belongs ' +
        'in the contract.',
      severity: 'error',
      from: { path: '^adapters/([^/]+)/', pathNot: [TEST, '^adapters/mutants/'] },
      to: { path: OURS, pathNot: ['^model/', CONTRACT, '^adapters/$1/'] },
    },
    {
      name: 'mutants-derive-from-reference-and-simulator',
      comment: 'A mutant is one of these two with one thing made wrong, so it may import them, and no other target.',
      severity: 'error',
      from: { path: '^adapters/mutants/', pathNot: TEST },
      to: { path: OURS, pathNot: ['^model/', CONTRACT, '^adapters/(mutants|reference|simulator)/'] },
    },
    {
      name: 'adapters-look-down',
      comment: 'A list of targets beside the contract may name the targets, but nothing above them.',
      severity: 'error',
      from: { path: '^adapters/[^/]+\\.ts$', pathNot: TEST },
      to: { path: OURS, pathNot: ['^model/', '^adapters/'] },
    },
    {
      name: 'simulator-shares-no-decision',
      comment:
        'A disagreement between model and simulator means something only while the two decide independently. They share ' +
        'types and the ABI: `import type`, or values from the ABI files of model/core.',
      severity: 'error',
      from: { path: '^adapters/simulator/', pathNot: TEST },
      to: { path: '^model/', pathNot: ABI, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'abi-holds-no-decision',
      comment:
        'Otherwise the simulator, which imports these files, would reach the decisions of the model through them.',
      severity: 'error',
      from: { path: ABI },
      to: { path: '^model/', pathNot: ABI, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'suite-knows-no-target',
      comment: 'The suite is for the targets of others; whoever calls it brings one.',
      severity: 'error',
      from: { path: '^jest/', pathNot: TEST },
      to: { path: OURS, pathNot: ['^(model|conformance|report|scenarios|jest)/', CONTRACT] },
    },
    {
      name: 'cli-is-the-top',
      comment: 'The command line chooses and prints; whatever others need from it belongs lower.',
      severity: 'error',
      from: { pathNot: '^cli/' },
      to: { path: '^cli/' },
    },
    {
      name: 'tests-are-leaves',
      comment: 'Importing a test registers its tests a second time. Shared helpers stand in files of their own.',
      severity: 'error',
      from: {},
      to: { path: TEST },
    },
    {
      name: 'shipped-code-needs-no-dev-package',
      comment: 'The published package is installed without development dependencies.',
      severity: 'error',
      from: { path: '^((model|adapters|conformance|report|cli|jest|scenarios)/|index\\.ts$)', pathNot: TEST },
      // The suite runs inside of jest, which brings this one.
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['type-only'], pathNot: '/@jest/globals/' },
    },
  ],
  options: {
    doNotFollow: { path: '^node_modules/' },
    exclude: { path: '^(dist|coverage)/' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: 'specify',
    skipAnalysisNotInRules: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.cjs', '.mjs', '.json', '.d.ts'],
    },
  },
};
