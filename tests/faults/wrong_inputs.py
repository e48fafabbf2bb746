"""Wrong inputs, one a row: what is wrong, the command or the call, and the words that its one line must have.

Files that rows name are those of `made_inputs.py`. To add one, add a row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OUT = "OUT"
"""In a row's words, an output folder of its own."""

TRAIN = (
    "--model_name_or_path models/whole --dataset_name good.jsonl --eval_size 4 --output_dir OUT --max_steps 1 "
    "--per_device_train_batch_size 4 --num_generations 4 --steps_per_generation 2 --max_completion_length 8 "
    "--report_to none --save_strategy no --probe_steps 0 --probe_size 4"
)
SFT = (
    "--base_model models/whole --target_accuracy 0.5 --dataset_name good.jsonl --completion_column solution "
    "--eval_size 4 --output_dir OUT --max_steps 1 --per_device_train_batch_size 4 --max_new_tokens 8 --report_to none"
)
PAIR = "--base_model models/whole --rl_model models/whole"
PROBLEMS = "--dataset_name good.jsonl --size 4 --max_new_tokens 8 --output_dir OUT"
SHIFT = f"{PAIR} {PROBLEMS}"
EVALUATE = "--model models/whole --datasets good.jsonl --size 4 --samples 1 --max_new_tokens 8 --output_dir OUT"
EVOLUTION = f"--base_model models/whole --checkpoints models/whole models/a_layer_less {PROBLEMS}"


@dataclass(frozen=True)
class WrongInput:
    """A wrong input on the command line.

    Attributes:
        wrong: what is wrong.
        command: a command of `tokenshift`; the empty string for the words of `tokenshift` itself.
        words: its words; those that come twice count where they come last.
        says: words that the line must have: the fault, and the remedy where there is one thing to do.
        model: whether a model's files have to be read to see it.
        runs: whether it shows only while a run is under way, which prints more before.
    """

    wrong: str
    command: str
    words: str
    says: tuple[str, ...]
    model: bool = False
    runs: bool = False


@dataclass(frozen=True)
class WrongCall:
    """A wrong input in Python, which ends in a ValueError with one line.

    Attributes:
        wrong: what is wrong.
        call: makes the mistake.
        says: words that the message must have.
    """

    wrong: str
    call: Callable[[], Any]
    says: tuple[str, ...]


def of(command: str, start: str, *rows: tuple[str, str, tuple[str, ...]], **marks: bool) -> list[WrongInput]:
    """Rows of one command whose words begin alike."""
    return [WrongInput(wrong, command, f"{start} {words}".strip(), says, **marks) for wrong, words, says in rows]


COMMAND_LINE: list[WrongInput] = [
    *of(
        "",
        "",
        ("an unknown command", "trian", ("'trian'", "did you mean train?")),
        ("an unknown launch config", "train --launch dpp", ("'dpp'", "did you mean ddp?")),
        (
            "a launch config of a billion values",
            "train --launch configs/merge_bomb.yaml",
            ("bomb.yaml", "5,000 values"),
        ),
        ("a launch config that is a list", "train --launch configs/a_list.yaml", ("a_list.yaml", "mapping")),
        ("a launcher's option without --launch", "train --num_processes 2", ("--num_processes", "give --launch")),
        ("no whole number of processes", "train --launch ddp --num_processes two", ("'two'", "whole number")),
        ("negative processes", "train --launch ddp --num_processes -2", ("'-2'", "at least 1")),
        (
            "no number of the machine",
            "train --launch multi_node --num_machines 2 --num_processes 2",
            ("needs --machine_rank", "0 to 1"),
        ),
        (
            "no main machine",
            "train --launch multi_node --num_machines 2 --num_processes 2 --machine_rank 1",
            ("needs --main_process_ip",),
        ),
        (
            "a machine too many",
            "train --launch multi_node --num_machines 2 --num_processes 2 --machine_rank 2 --main_process_ip 10.0.0.1",
            ("machine_rank=2", "0 to 1"),
        ),
        (
            "processes that machines cannot share",
            "train --launch ddp --num_machines 2 --num_processes 3 --machine_rank 1 --main_process_ip 10.0.0.1",
            ("num_processes=3", "multiple of 2"),
        ),
        ("an accelerate config that is none", "train --launch good.jsonl", ("good.jsonl", "is not YAML")),
        ("a launch of one that runs in one process", "change --launch ddp", ("change takes no --launch",)),
    ),
    *of(
        "train",
        "",
        ("an unknown option", "--learning_rte 1e-4", ("learning_rte", "did you mean")),
        ("a word for a number", "--max_steps many", ("max_steps", "many")),
        ("no value", "--max_steps", ("max_steps", "expected one argument")),
        ("a word that belongs to nothing", "much faster", ("'much'", "--name value")),
        ("a config that is not there", "--config nowhere.yaml", ("'nowhere.yaml'", "is not a file")),
        ("a config that is a folder", "--config a_folder", ("'a_folder'", "is not a file")),
        ("a config that is a list", "--config configs/a_list.yaml", ("must hold a mapping",)),
        ("a config that is a word", "--config configs/a_word.yaml", ("must hold a mapping",)),
        ("an empty config", "--config configs/empty.yaml", ("must hold a mapping",)),
        ("a config that is no YAML", "--config configs/broken.yaml", ("is not YAML",)),
        ("a config that is no text", "--config configs/not_text.yaml", ("is not YAML",)),
        ("a config that would run a command", "--config configs/python_object.yaml", ("is not YAML",)),
        ("an unknown field", "--config configs/unknown_field.yaml", ("learning_rte", "did you mean learning_rate?")),
        ("a word for a number in a config", "--config configs/wrong_type.yaml", ("max_steps='many'", "whole number")),
        ("a mapping for a number", "--config configs/a_mapping_for_a_number.yaml", ("max_steps", "whole number")),
        ("a list for a number", "--config configs/a_list_for_a_number.yaml", ("seed=[1, 2]", "whole number")),
        ("NaN in a config", "--config configs/nan.yaml", ("beta=nan", "finite")),
        ("aliases of a billion values", "--config configs/bomb.yaml", ("configs/bomb.yaml", "5,000 values")),
        ("merged aliases", "--config configs/merge_bomb.yaml", ("configs/merge_bomb.yaml", "5,000 values")),
        ("lists in lists without end", "--config configs/deep.yaml", ("configs/deep.yaml", "100 levels")),
        ("mappings nested too deeply", "--config configs/deep_block.yaml", ("configs/deep_block.yaml", "100 levels")),
        ("a value that contains itself", "--config configs/itself.yaml", ("configs/itself.yaml", "contains itself")),
        ("a config that is too long", "--config configs/long.yaml", ("configs/long.yaml", "262,144 characters")),
        ("a number of 5,000 digits", "--config configs/digits.yaml", ("configs/digits.yaml", "is not YAML", "digits")),
        ("the config of no user", "--config ~nosuchuser/a.yaml", ("--config='~nosuchuser/a.yaml'", "home folder")),
        ("a weighting that is not known", "--advantage_weighting sigmod", ("did you mean sigmoid?",)),
        ("a reward that is not known", "--reward_funcs acuracy_reward", ("did you mean accuracy_reward?",)),
        ("no reward", "--reward_funcs", ("reward_funcs", "at least one")),
        ("a loss that is not known", "--loss_type grpoo", ("loss_type='grpoo'", "grpo")),
        ("both of yes and no", "--bf16 maybe", ("bf16", "maybe", "yes/no")),
    ),
    *of(
        "train",
        TRAIN,
        ("NaN", "--beta nan", ("beta=nan", "finite")),
        ("NaN of the learning rate", "--learning_rate nan", ("learning_rate=nan", "finite")),
        ("an infinite slope", "--divergence_alpha inf", ("divergence_alpha=inf", "finite")),
        ("a negative scale", "--divergence_scale -1", ("divergence_scale=-1", "must be >= 0")),
        ("a negative learning rate", "--learning_rate -1", ("learning_rate=-1", "at least 0")),
        ("a negative seed", "--seed -1", ("seed=-1", "at least 0")),
        ("negative updates", "--max_steps -3", ("max_steps=-3", "-1")),
        ("no prompts in a batch", "--per_device_train_batch_size 0", ("per_device_train_batch_size=0", "at least 1")),
        ("a negative number of generations", "--num_generations -4", ("num_generations=-4", "at least 1")),
        ("no tokens", "--max_completion_length 0", ("max_completion_length=0", "at least 1")),
        ("a temperature of 0", "--temperature 0", ("temperature=0", "above 0")),
        ("a nucleus above 1", "--top_p 1.5", ("top_p=1.5", "(0, 1]")),
        ("a negative nucleus", "--divergence_top_p -0.1", ("divergence_top_p=-0.1", "(0, 1]")),
        ("a limit of verification of 0", "--verify_timeout 0", ("verify_timeout=0", "above 0")),
        ("no verification process", "--verify_workers 0", ("verify_workers=0", "at least 1")),
        ("a negative threshold of gradients", "--max_grad_norm -1", ("max_grad_norm=-1", "at least 0")),
        ("a negative rank of an adapter", "--use_peft true --lora_r -4", ("lora_r=-4", "at least 1")),
        ("an adapter without effect", "--use_peft true --lora_alpha 0", ("lora_alpha=0", "above 0")),
        ("an adapter that drops all", "--use_peft true --lora_dropout 3", ("lora_dropout=3", "[0, 1)")),
        ("a negative clipping range", "--epsilon -0.2", ("epsilon=-0.2", "at least 0")),
        ("a negative weight decay", "--weight_decay -1", ("weight_decay=-1", "at least 0")),
        ("a warm-up before the start", "--warmup_steps -5", ("warmup_steps=-5", "at least 0")),
        ("no epochs", "--num_train_epochs 0", ("num_train_epochs=0", "positive")),
        ("a decay of 1", "--adam_beta1 1", ("adam_beta1=1", "below 1")),
        ("no time for verification", "--verify_budget 0", ("verify_budget=0", "above 0")),
        ("no time for other processes", "--ddp_timeout 0", ("ddp_timeout=0", "positive")),
        ("options nested without end", f"--weighting_options {'[' * 5000}", ("weighting_options", "JSON")),
        ("the output folder of no user", "--output_dir ~nosuchuser/out", ("output_dir='~nosuchuser/out'", "home")),
        ("an output folder of a long name", f"--output_dir {'x' * 5000}", ("output_dir='xxx", "5,000 characters")),
        ("the model of no user", "--model_name_or_path ~nosuchuser/m", ("model_name_or_path='~nosuchuser/m'", "home")),
        ("the data of no user", "--dataset_name ~nosuchuser/a.jsonl", ("dataset_name='~nosuchuser/a.jsonl'", "home")),
        ("a gold answer of 5,000 digits", "--dataset_name digits.jsonl", ("digits.jsonl", "row 0", "digits")),
        ("a gold answer of 4,001 digits", "--dataset_name long_golds.jsonl", ("solution_column", "row 11", "digits")),
        ("data nested without end", "--dataset_name deep.jsonl", ("deep.jsonl", "row 0", "nested too deeply")),
        ("options that are no JSON", "--weighting_options {c:", ("weighting_options", "JSON")),
        ("an output folder that is a file", "--output_dir a_file", ("output_dir='a_file'", "is a file")),
        ("an output folder below a file", "--output_dir a_file/out", ("output_dir='a_file/out'", "a file")),
        ("data that is not there", "--dataset_name nowhere.jsonl", ("nowhere.jsonl", "no such file")),
        ("data in an unknown kind of file", "--dataset_name data.txt", ("data.txt", ".jsonl")),
        ("an empty data file", "--dataset_name empty.jsonl", ("empty.jsonl", "empty")),
        ("a CSV file without rows", "--dataset_name empty.csv", ("empty",)),
        ("data that is no JSON", "--dataset_name broken.jsonl", ("broken.jsonl", "cannot be")),
        ("data that is no Parquet", "--dataset_name broken.parquet", ("broken.parquet", "cannot be")),
        ("no prompts", "--dataset_name no_prompt.jsonl", ("prompt_column='prompt'", "'question'")),
        ("no gold answers", "--dataset_name no_solution.jsonl", ("solution_column='solution'", "'prompt'")),
        ("gold answers that are missing", "--dataset_name no_gold.jsonl", ("solution_column='solution'", "empty")),
        ("prompts that are numbers", "--dataset_name number_prompts.jsonl", ("prompt_column='prompt'", "text")),
        ("a prompt that is missing", "--dataset_name missing_prompt.jsonl", ("prompt_column='prompt'", "row")),
        ("gold answers that are mappings", "--dataset_name mapping_golds.jsonl", ("solution_column", "'value'")),
        ("gold answers that are lists", "--dataset_name list_golds.jsonl", ("solution_column", "list")),
        ("gold answers that are blank", "--dataset_name blank_golds.jsonl", ("solution_column", "blank")),
        ("too few rows", "--dataset_name one_row.jsonl", ("one_row.jsonl", "too few")),
        ("an unknown split", "--dataset_train_split trian", ("'trian'", "'train'")),
        ("a template without a prompt", "--prompt_template hello", ("prompt_template='hello'", "{prompt}")),
        ("a model that is not there", "--model_name_or_path ./nowhere", ("model_name_or_path='./nowhere'", "config")),
        ("a model that is a file", "--model_name_or_path ./a_file", ("model_name_or_path='./a_file'",)),
        ("a folder without a model", "--model_name_or_path a_folder", ("model_name_or_path='a_folder'", "config")),
        ("a checkpoint that is not there", "--resume_from_checkpoint runs/none", ("runs/none", "not a checkpoint")),
        ("an earlier run", "--output_dir runs/earlier", ("runs/earlier", "--resume_from_checkpoint true")),
        ("a module that is not there", "--reward_funcs nothing.right", ("nothing.right", "cannot be imported")),
        ("a function that is not there", "--reward_funcs my_rewards.rises", ("did you mean raises?",)),
        ("no function", "--reward_funcs my_rewards.NOT_A_FUNCTION", ("NOT_A_FUNCTION", "not a function")),
        ("a module with a typing mistake", "--reward_funcs my_broken.right", ("my_broken.right", "SyntaxError")),
        ("a module that lacks another", "--reward_funcs my_missing.right", ("not_installed_anywhere",)),
        ("a weighting that is no weighting", "--advantage_weighting my_weights.undecorated", ("not registered",)),
        ("fewer weights of rewards", "--reward_weights 1 2", ("reward_weights", "2 numbers for 1")),
        ("vLLM that is not installed", "--use_vllm true", ("use_vllm", "pip install")),
        ("Liger kernels", "--use_liger_kernel true", ("use_liger_kernel=True", "use_liger_kernel=False")),
        (
            "a compiled model and whole distributions",
            "--torch_compile true --divergence js",
            ("torch_compile=True", "torch_compile=False"),
        ),
        ("a batch that does not divide", "--per_device_train_batch_size 3", ("generation_batch_size", "divisible")),
        ("generations that do not divide", "--num_generations 3", ("num_generations", "divisible")),
        (
            "more prompts than data",
            "--steps_per_generation 64",
            ("training problems", "a generation takes 64 prompts"),
        ),
        ("an option without effect", "--wandb_project mine", ("wandb_project", "no effect")),
    ),
    *of(
        "train",
        TRAIN,
        ("code of its own", "--model_name_or_path models/own_code", ("needs code of its own", "--trust_remote_code")),
        ("no weights", "--model_name_or_path models/no_weights", ("models/no_weights", "no weights")),
        ("torn weights", "--model_name_or_path models/torn", ("models/torn", "damaged")),
        ("weights of zeros", "--model_name_or_path models/zeros", ("models/zeros", "damaged")),
        ("a layer that is missing", "--model_name_or_path models/a_layer_less", ("a_layer_less", "no weights for")),
        ("a part that is missing", "--model_name_or_path models/missing_part", ("model-00002-of-00002",)),
        ("weights of other sizes", "--model_name_or_path models/other_sizes", ("other_sizes", "shapes")),
        ("a harmful pickle", "--model_name_or_path models/pickle", ("pytorch_model.bin", "is not read")),
        ("a harmful old pickle", "--model_name_or_path models/old_pickle", ("pytorch_model.bin", "is not read")),
        ("an unknown kind of model", "--model_name_or_path models/unknown_kind", ("models/unknown_kind",)),
        ("a config that is a list", "--model_name_or_path models/list_config", ("models/list_config",)),
        ("an empty model config", "--model_name_or_path models/empty_config", ("models/empty_config",)),
        ("words for sizes", "--model_name_or_path models/wrong_numbers", ("models/wrong_numbers",)),
        ("no tokenizer", "--model_name_or_path models/no_tokenizer", ("models/no_tokenizer",)),
        ("an encoder", "--model_name_or_path models/encoder", ("models/encoder",)),
        ("an adapter as the model", "--model_name_or_path models/adapter", ("models/adapter", "adapter")),
        ("a context too short", "--model_name_or_path models/short", ("models/short", "max_completion_length")),
        ("prompts too long", "--dataset_name long_prompts.jsonl", ("reads 128",)),
        ("conversations without a template", "--dataset_name conversations.jsonl", ("chat template",)),
        ("a reward that needs a column", "--reward_funcs my_rewards.needs_a_column", ("needs_a_column", "difficulty")),
        ("a harmful checkpoint", "--output_dir runs/harmful --resume_from_checkpoint true", ("optimizer.pt",)),
        (
            "a harmful file in a checkpoint's folder",
            "--output_dir runs/harmful_folder --resume_from_checkpoint true",
            ("global_step2/mp_rank_00_model_states.pt", "is not read"),
        ),
        (
            "a checkpoint of an empty state",
            "--output_dir runs/no_state --resume_from_checkpoint true",
            ("trainer_state.json is no state", "global_step"),
        ),
        model=True,
    ),
    *of(
        "train",
        TRAIN,
        ("a reward that raises", "--reward_funcs my_rewards.raises", ("my_rewards.raises", "IndexError")),
        ("a reward that ends the program", "--reward_funcs my_rewards.exits", ("my_rewards.exits", "SystemExit")),
        ("a generate of its own", "--model_name_or_path models/own_generate", ("needs code of its own", "read it")),
        ("a reward that gives too few", "--reward_funcs my_rewards.too_few", ("my_rewards.too_few",)),
        ("a reward that gives nothing", "--reward_funcs my_rewards.nothing", ("my_rewards.nothing",)),
        ("a reward that gives words", "--reward_funcs my_rewards.words", ("my_rewards.words", "'good'")),
        ("a reward that gives one number", "--reward_funcs my_rewards.one_number", ("my_rewards.one_number",)),
        ("a reward that gives a matrix", "--reward_funcs my_rewards.a_matrix", ("my_rewards.a_matrix",)),
        ("a reward that gives a mapping", "--reward_funcs my_rewards.a_dictionary", ("my_rewards.a_dictionary",)),
        ("a reward of complex numbers", "--reward_funcs my_rewards.complex_numbers", ("complex_numbers", "1j")),
        ("a weighting that raises", "--advantage_weighting my_weights.raises", ("my_weights", "not_there")),
        ("weights of another shape", "--advantage_weighting my_weights.of_another_shape", ("of_another_shape",)),
        ("a weighting that gives text", "--advantage_weighting my_weights.text", ("my_weights", "text")),
        model=True,
        runs=True,
    ),
    *of(
        "sft",
        SFT,
        ("a base model that is not there", "--base_model ./nowhere", ("base_model='./nowhere'",)),
        ("no solutions", "--completion_column answer", ("completion_column='answer'", "'solution'")),
        ("a target above 1", "--target_accuracy 50", ("target_accuracy=50", "(0, 1]")),
        ("a target of NaN", "--target_accuracy nan", ("target_accuracy=nan",)),
        ("no updates between checks", "--check_steps 0", ("check_steps=0", "at least 1")),
        ("a wording of other data", "--wording taught", ("wording='taught'", "pocket")),
        ("a wording that is not known", "--wording mine", ("wording='mine'", "taught")),
        ("the other name of the model", "--model_name_or_path models/whole", ("--base_model",)),
        ("data that is not there", "--dataset_name nowhere.csv", ("nowhere.csv", "no such file")),
        ("an output folder that is a file", "--output_dir a_file", ("output_dir='a_file'", "is a file")),
        ("a temperature below 0", "--temperature -1", ("temperature=-1",)),
    ),
    *of(
        "sft",
        SFT,
        ("empty solutions", "--dataset_name empty_completion.jsonl --completion_column completion", ("no solution",)),
        ("code of its own", "--base_model models/own_code", ("needs code of its own", "--trust_remote_code")),
        ("a harmful pickle", "--base_model models/pickle", ("pytorch_model.bin", "is not read")),
        ("torn weights", "--base_model models/torn", ("models/torn", "damaged")),
        ("a context too short", "--base_model models/short", ("longer than 4",)),
        model=True,
    ),
    *of(
        "shift",
        SHIFT,
        ("an RL model that is not there", "--rl_model ./nowhere", ("rl_model='./nowhere'",)),
        ("a base that is not there", "--base_model ./nowhere", ("base_model='./nowhere'",)),
        ("no samples", "--samples 0", ("samples=0", "at least 1")),
        ("a negative size", "--size -1", ("size=-1", "at least 1")),
        ("a temperature of NaN", "--temperature nan", ("temperature=nan",)),
        ("a nucleus of 0", "--top_p 0", ("top_p=0",)),
        ("a negative seed", "--seed -1", ("seed=-1", "at least 0")),
        ("an unknown dtype", "--dtype float8", ("dtype='float8'", "bfloat16")),
        ("an unknown measure", "--measure jss", ("measure='jss'", "js_top_p")),
        ("a threshold of NaN", "--correct_threshold nan", ("correct_threshold=nan", "finite")),
        ("responses that are not there", "--trajectories nowhere.jsonl", ("nowhere.jsonl",)),
        ("an output folder that is a file", "--output_dir a_file", ("output_dir='a_file'", "is a file")),
        ("a folder of something else", "--output_dir foreign", ("output_dir='foreign'", "damaged")),
        ("a control that is not there", "--control nowhere", ("control='nowhere'",)),
        ("the model of no user", "--rl_model ~nosuchuser/m", ("rl_model='~nosuchuser/m'", "home folder")),
        ("the responses of no user", "--trajectories ~nosuchuser/a", ("trajectories='~nosuchuser/a'", "home folder")),
        ("options nested without end", f"--chat_template_kwargs {'[' * 5000}", ("chat_template_kwargs", "mapping")),
        ("a template's options that are none", "--chat_template_kwargs [1,2]", ("chat_template_kwargs", "mapping")),
        ("one name of two", "--rl_model a=models/whole models/torn", ("name=model for all",)),
        ("a model twice", "--rl_model models/whole models/whole", ("given twice",)),
        ("gold answers that are mappings", "--dataset_name mapping_golds.jsonl", ("solution_column", "'value'")),
        ("no resamples", "--resamples 0", ("resamples", "at least 1")),
    ),
    *of(
        "shift",
        SHIFT,
        ("tokenizers that differ", "--rl_model models/other_words", ("tokenizers differ", "'7'")),
        ("code of its own", "--rl_model models/own_code", ("needs code of its own", "--trust_remote_code")),
        ("a harmful pickle", "--rl_model models/pickle", ("pytorch_model.bin", "is not read")),
        ("an adapter of nothing", "--rl_model models/adapter_of_nothing", ("not_there",)),
        ("a torn adapter", "--rl_model models/adapter_torn", ("adapter_model.safetensors", "damaged")),
        ("a harmful adapter", "--rl_model models/adapter_pickle", ("adapter_model.bin", "is not read")),
        ("a learned prompt", "--rl_model models/learned_prompt", ("PROMPT_TUNING", "cannot be merged")),
        ("a layer that is missing", "--rl_model models/a_layer_less", ("a_layer_less", "no weights for")),
        ("a context too short", "--rl_model models/short", ("models/short",)),
        ("turns without a role", "--dataset_name wrong_turns.jsonl", ("chat template",)),
        ("a reward that raises", "--reward_func my_rewards.raises", ("my_rewards.raises", "IndexError")),
        ("a reward that ends the program", "--reward_func my_rewards.exits", ("my_rewards.exits", "SystemExit")),
        ("a reward that gives too few", "--reward_func my_rewards.too_few", ("my_rewards.too_few",)),
        ("a reward that needs a column", "--reward_func my_rewards.needs_a_column", ("difficulty",)),
        ("an attention that is not there", "--attn_implementation eagre", ("eagre",)),
        model=True,
        runs=True,
    ),
    *of(
        "shift",
        f"{PAIR} --output_dir OUT",
        *(
            (f"responses: {name}", f"--trajectories {file}.jsonl", (file, "row 0"))
            for name, file in (
                ("numbers for texts", "responses_numbers"),
                ("ids that the tokenizer lacks", "responses_wrong_ids"),
                ("text for ids", "responses_text_ids"),
                ("a verdict in words", "responses_wrong_verdict"),
                ("lists for rows", "responses_list"),
            )
        ),
        ("responses without completions", "--trajectories responses_no_completion.jsonl", ("completion_ids",)),
        ("responses in an empty file", "--trajectories empty.jsonl", ("empty",)),
        ("responses in a damaged file", "--trajectories broken.parquet", ("broken.parquet", "cannot be read")),
        model=True,
    ),
    *of(
        "evolution",
        EVOLUTION,
        ("checkpoints that are not there", "--checkpoints nowhere/checkpoint-*", ("nowhere", "finds no folder")),
        ("a checkpoint twice", "--checkpoints models/whole models/whole", ("twice",)),
        ("an RL model beside checkpoints", "--rl_model models/whole", ("rl_model", "no effect")),
    ),
    *of("evolution", EVOLUTION, ("a layer that is missing", "", ("a_layer_less", "no weights for")), model=True),
    *of(
        "robustness",
        SHIFT,
        ("an unknown kind", "--kinds rll", ("kinds", "rll")),
        ("a temperature of 0", "--temperatures 0 1", ("temperatures", "above 0")),
        ("a nucleus of 1", "--top_ps 1", ("top_ps", "(0, 1)")),
        ("a threshold above ln 2", "--mixed_epsilon 2", ("mixed_epsilon=2", "ln 2")),
        ("a temperature of NaN", "--temperatures nan", ("temperatures",)),
    ),
    *of(
        "robustness",
        SHIFT,
        ("code of its own", "--rl_model models/own_code", ("needs code of its own", "--trust_remote_code")),
        model=True,
    ),
    *of(
        "cross",
        SHIFT,
        ("an unknown criterion", "--criteria jss", ("did you mean js?",)),
        ("an option that a criterion lacks", "--criteria js(scale=2)", ("js(scale=2)",)),
        ("a threshold of NaN", "--epsilons nan", ("epsilons has nan", "finite")),
        ("a budget above 1", "--budgets 2", ("budgets has 2", "(0, 1)")),
        ("an unknown direction", "--directions sideways", ("directions", "sideways")),
        ("a negative seed", "--seeds -1", ("seeds", "at least 0")),
        ("a negative gamma", "--gammas -1", ("gamma",)),
        ("an unknown engine", "--engine lockstp", ("did you mean lockstep?",)),
        ("no problems of the pilot", "--pilot 0", ("pilot=0", "at least 1")),
        ("vLLM", "--use_vllm true", ("use_vllm",)),
        ("no replacements", "--most -1", ("most",)),
    ),
    *of(
        "cross",
        SHIFT,
        ("tokenizers that differ", "--rl_model models/other_words", ("tokenizers differ",)),
        ("code of its own", "--base_model models/own_code", ("needs code of its own", "--trust_remote_code")),
        ("a criterion that raises", "--criteria my_criteria.raises --epsilons 0.1", ("my_criteria", "nothing")),
        ("a criterion of one number", "--criteria my_criteria.one_number --epsilons 0.1", ("one_number",)),
        model=True,
        runs=True,
    ),
    *of(
        "evaluate",
        EVALUATE,
        ("a model that is not there", "--model ./nowhere", ("model='./nowhere'",)),
        ("data that is not there", "--datasets nowhere.jsonl", ("datasets='nowhere.jsonl'", "no such file")),
        ("a set twice", "--datasets good.jsonl good.jsonl", ("twice",)),
        ("a k above the samples", "--ks 64", ("ks has 64", "samples=1")),
        ("a k of 0", "--ks 0", ("ks=0", "at least 1")),
        ("two columns for one set", "--prompt_column a b", ("prompt_column has 2 values",)),
        ("an unknown extractor", "--answer_extractor maths", ("did you mean math?",)),
        ("no prompts", "--datasets no_prompt.jsonl", ("prompt_column='prompt'", "'question'")),
        ("an empty set", "--datasets empty.jsonl", ("empty",)),
        ("an output folder that is a file", "--output_dir a_file", ("output_dir='a_file'", "is a file")),
        ("infinite temperature", "--temperature inf", ("temperature=inf",)),
    ),
    *of(
        "evaluate",
        EVALUATE,
        ("code of its own", "--model models/own_code", ("needs code of its own", "--trust_remote_code")),
        ("a generate of its own", "--model models/own_generate", ("needs code of its own", "--trust_remote_code")),
        ("data that is a number", "--datasets 7", ("datasets='7'",)),
        ("a harmful pickle", "--against models/pickle", ("pytorch_model.bin", "is not read")),
        ("torn weights", "--model models/torn", ("models/torn", "damaged")),
        ("an encoder", "--model models/encoder", ("models/encoder",)),
        ("a reward that gives words", "--reward_func my_rewards.words", ("my_rewards.words", "'good'")),
        ("a reward that is infinite", "--reward_func my_rewards.infinite", ("my_rewards.infinite", "finite")),
        model=True,
        runs=True,
    ),
    *of(
        "compare",
        "--config",
        ("a file that is not there", "nowhere.yaml", ("nowhere.yaml", "compare_pocket")),
        ("a folder", "a_folder", ("a_folder", "is not a file")),
        ("a list", "configs/compare_a_list.yaml", ("compare_a_list.yaml", "mapping")),
        ("an empty file", "configs/empty.yaml", ("empty.yaml", "mapping")),
        ("no YAML", "configs/broken.yaml", ("broken.yaml", "not YAML")),
        ("aliases of a billion values", "configs/compare_bomb.yaml", ("compare_bomb.yaml", "5,000 values", "line")),
        ("lists in lists without end", "configs/compare_deep.yaml", ("compare_deep.yaml", "100 levels", "line")),
        ("no variants", "configs/compare_no_variants.yaml", ("variants is missing",)),
        ("one variant", "configs/compare_one_variant.yaml", ("alone",)),
        ("a baseline that is no variant", "configs/compare_no_baseline.yaml", ("baseline='other'",)),
        ("a negative seed", "configs/compare_negative_seed.yaml", ("seeds[1]=-1", "at least 0")),
        ("a word as a seed", "configs/compare_word_seed.yaml", ("seeds[1]='one'", "whole number")),
        ("a seed twice", "configs/compare_seed_twice.yaml", ("twice",)),
        ("no seed", "configs/compare_empty_seeds.yaml", ("seeds is empty",)),
        ("an unknown setting", "configs/compare_unknown_setting.yaml", ("'sedes'", "did you mean seeds?")),
        ("a setting twice", "configs/compare_twice.yaml", ("'seeds' is there twice",)),
        ("an unknown field", "configs/compare_unknown_field.yaml", ("advantage_weightng",)),
        ("a negative scale", "configs/compare_wrong_value.yaml", ("divergence_scale=-1",)),
        ("a training config that is not there", "configs/compare_no_config.yaml", ("not_there",)),
        ("a variant that is a path", "configs/compare_variant_path.yaml", ("../up",)),
        ("no data", "configs/compare_no_datasets.yaml", ("names no datasets", "datasets: [pocket]")),
        ("a list as the evaluation", "configs/compare_list_evaluation.yaml", ("evaluation", "mapping")),
        ("no cells at once", "configs/compare_parallel.yaml", ("parallel=0", "at least 1")),
        ("a field that the comparison sets", "configs/compare_reserved.yaml", ("output_dir", "drop it")),
        ("a launch config that is not there", "configs/compare_launch.yaml", ("not_there", "ddp")),
        ("an unknown option", "compare_pocket --sedes 3", ("sedes", "no argument")),
    ),
    *of(
        "compare",
        "",
        ("a plan without an effect", "--plan nowhere", ("--effect",)),
        ("a plan of nothing", "--plan nowhere --effect 2", ("nowhere",)),
        ("an effect of NaN", "--plan nowhere --effect nan", ("effect=nan",)),
        ("an outcome that is not known", "--outcome best", ("outcome='best'",)),
    ),
    *of(
        "reproduce",
        "--output_dir OUT",
        ("an unknown option", "--scales pocket", ("scales", "did you mean scale?")),
        ("a scale that is not known", "--scale pockets", ("scale='pockets'", "pocket")),
        ("one seed", "--seeds 0", ("seeds=[0]", "two or more")),
        ("a seed twice", "--seeds 0 1 1", ("seeds has 1 twice",)),
        ("a word as a seed", "--seeds 0 one", ("seeds", "'one'")),
        ("a negative seed", "--seeds 0 -1", ("seeds=-1", "at least 0")),
        ("no parts at once", "--parallel 0", ("parallel=0", "at least 1")),
        ("an analysis that is not known", "--leave_out shft", ("leave_out='shft'", "shift")),
        ("a file that is not there", "--config nowhere.yaml", ("nowhere.yaml", "reproduce_pocket")),
        ("a folder for a file", "--config a_folder", ("a_folder", "is not a file")),
        ("no YAML", "--config configs/broken.yaml", ("broken.yaml", "YAML")),
        ("aliases of a billion values", "--config configs/bomb.yaml", ("bomb.yaml", "5,000 values")),
        ("a list", "--config configs/a_list.yaml", ("a_list.yaml", "mapping")),
        ("a file that would run a command", "--config configs/python_object.yaml", ("python_object.yaml", "YAML")),
        ("an unknown field", "--config configs/unknown_field.yaml", ("unknown_field.yaml", "learning_rte")),
        ("other seeds that are not there", "--against nowhere", ("against='nowhere'", "reproduction.json")),
        ("an output folder that is a file", "--output_dir a_file", ("a_file",)),
    ),
    *of(
        "change",
        "--output_dir OUT --model models/whole",
        ("no change", "", ("model_config_overrides",)),
        ("a list of changes", "--model_config_overrides [1]", ("model_config_overrides='[1]'", "mapping")),
        ("a model that is not there", "--model ./nowhere --model_config_overrides {a:1}", ("./nowhere",)),
        ("an unknown option", "--overrides {a:1}", ("overrides is no argument",)),
        (
            "an output folder that is a file",
            "--output_dir a_file --model_config_overrides '{\"max_position_embeddings\": 8}'",
            ("a_file",),
        ),
    ),
    *of(
        "change",
        "--output_dir OUT",
        ("a setting that is not known", "--model models/whole --model_config_overrides '{a: 1}'", ("'a'",)),
        (
            "a config that is a list",
            "--model models/list_config --model_config_overrides '{\"max_position_embeddings\": 8}'",
            ("models/list_config",),
        ),
        (
            "an adapter",
            "--model models/adapter --model_config_overrides '{\"max_position_embeddings\": 8}'",
            ("adapter", "merge"),
        ),
        model=True,
    ),
    *of(
        "benchmark",
        "",
        ("an unknown part", "--parts nope", ("parts='nope'",)),
        ("an unknown model", "--model mine", ("model='mine'", "pocket")),
        ("no rounds", "--rounds 0", ("rounds=0", "at least 1")),
        ("a threshold of NaN", "--parts cross_sampling --epsilon nan", ("epsilon=nan",)),
        ("an option without effect", "--parts startup --tokens 3", ("tokens", "no effect")),
        ("a model that is not there", "--parts cross_sampling --rl_model ./nowhere", ("rl_model='./nowhere'",)),
    ),
    *of(
        "doctor",
        "",
        ("no folder", "", ("output_dir",)),
        ("a folder that is not there", "gone", ("'gone'",)),
    ),
    *of(
        "export",
        "",
        ("no file", "outputs/pocket", ("file",)),
        ("a folder that is not there", "gone tokens.csv", ("'gone'", "Parquet")),
        ("another kind of file", "gone tokens.xlsx", ("'tokens.xlsx'", ".csv", ".tsv")),
    ),
    *of("workspace", "", ("a word that belongs to nothing", "all", ("all",))),
    *of("env", "", ("a word that belongs to nothing", "all", ("all",))),
]


def _trainer(**changes: Any) -> Any:
    """A trainer of the tiny model, made with some settings, or arguments, otherwise."""
    from datasets import Dataset
    from helpers.tiny_training import SETTINGS, digit_reward

    from tokenshift.trainer import DivergenceGRPOConfig, DivergenceGRPOTrainer

    arguments = {name: changes.pop(name) for name in ("model", "reward_funcs", "train_dataset") if name in changes}
    arguments.setdefault("model", "models/whole")
    arguments.setdefault("reward_funcs", digit_reward)
    arguments.setdefault("train_dataset", Dataset.from_list([{"prompt": f"{n} + 1 ="} for n in range(12)]))
    settings = {**SETTINGS, "output_dir": "out_of_calls", "max_steps": 1, **changes}
    return DivergenceGRPOTrainer(args=DivergenceGRPOConfig(**settings), **arguments)


def _trained_by(name: str) -> None:
    from tokenshift.rewards import load_reward

    _trainer(reward_funcs=load_reward(f"my_rewards.{name}")).train()


def _config(**settings: Any) -> Any:
    from tokenshift.trainer import DivergenceGRPOConfig

    settings = {"output_dir": "out_of_calls", "report_to": [], "use_cpu": True, "bf16": False, **settings}
    return DivergenceGRPOConfig(**{"steps_per_generation": 2, **settings})


def _find(name: str, **options: Any) -> Any:
    from tokenshift.recipes.inputs import find_model

    return find_model("model", name, **options)


def _loaded() -> tuple[Any, Any]:
    import torch

    source = _find("models/whole")
    return source.load("float32", torch.device("cpu")), source.tokenizer


def _analyzed(problems: Any = ("1 + 1 =",), **options: Any) -> Any:
    from tokenshift.analysis import analyze

    model, tokenizer = _loaded()
    return analyze(model, model, tokenizer, list(problems) if isinstance(problems, tuple) else problems, **options)


def _evaluated(problems: Any = ("1 + 1 =",), **options: Any) -> Any:
    from tokenshift.analysis import evaluate

    model, tokenizer = _loaded()
    options.setdefault("grade", lambda *_: [])
    return evaluate({"mine": model}, tokenizer, list(problems), **options)


def _problems(name: str, **options: Any) -> Any:
    from tokenshift.recipes.inputs import load_problem_set

    return load_problem_set(name, **options)


def _judged(name: str = "accuracy_reward", data: str = "good.jsonl") -> Any:
    from tokenshift.recipes.inputs import judge_of, load_problem_set

    return judge_of(load_problem_set(data), name)


def _reward_of(name: str) -> Any:
    from tokenshift.analysis.sampling.rewarded_rows import row_rewards
    from tokenshift.rewards import load_reward

    return row_rewards(load_reward(f"my_rewards.{name}"), {"prompt": ["1", "2"], "solution": ["1", "2"]}, ["1", "2"])


def _accuracy_of(gold: Any) -> Any:
    from tokenshift.rewards import accuracy_reward

    return accuracy_reward([" 2"], [gold])


def _sampling(**settings: Any) -> Any:
    from tokenshift.analysis import Sampling

    return Sampling(**settings)


def _intervention(*settings: Any) -> Any:
    from tokenshift.analysis import Intervention

    return Intervention(*settings)


def _divergence(shape: tuple[int, ...], other: tuple[int, ...]) -> Any:
    import torch

    from tokenshift.analysis import js_divergence

    return js_divergence(torch.zeros(shape), torch.zeros(other))


def _pass_at(responses: Any, correct: Any, k: Any) -> Any:
    from tokenshift.analysis import pass_at_k

    return pass_at_k(responses, correct, k)


def _adjusted(*values: Any) -> Any:
    from tokenshift.analysis import holm

    return holm(values)


CALLS: list[WrongCall] = [
    WrongCall("a weighting that is not known", lambda: _config(advantage_weighting="sigmod"), ("sigmoid",)),
    WrongCall("a weighting that is a number", lambda: _config(advantage_weighting=3), ("advantage_weighting=3",)),
    WrongCall("a slope of NaN", lambda: _config(divergence_alpha=float("nan")), ("divergence_alpha=nan", "finite")),
    WrongCall("a slope in words", lambda: _config(divergence_alpha="steep"), ("divergence_alpha='steep'",)),
    WrongCall("a negative scale", lambda: _config(divergence_scale=-1.0), ("divergence_scale=-1.0",)),
    WrongCall("a temperature of 0", lambda: _config(temperature=0.0), ("temperature=0.0", "positive")),
    WrongCall("a temperature of NaN", lambda: _config(temperature=float("nan")), ("temperature=nan",)),
    WrongCall("a nucleus in words", lambda: _config(top_p="most"), ("top_p='most'",)),
    WrongCall("half a probe", lambda: _config(probe_steps=0.5), ("probe_steps=0.5", "whole number")),
    WrongCall("options in a list", lambda: _config(weighting_options=[1]), ("weighting_options",)),
    WrongCall("a learning rate of NaN", lambda: _config(learning_rate=float("nan")), ("learning_rate=nan",)),
    WrongCall("a seed in words", lambda: _config(seed="one"), ("seed='one'",)),
    WrongCall("a negative seed", lambda: _config(seed=-1), ("seed=-1",)),
    WrongCall("a model that is not there", lambda: _find("./nowhere"), ("./nowhere",)),
    WrongCall("a model that is a number", lambda: _find(3), ("model=3",)),  # type: ignore[arg-type]
    WrongCall("a model with code of its own", lambda: _find("models/own_code"), ("trust_remote_code=True",)),
    WrongCall("a model that is a harmful pickle", lambda: _find("models/pickle"), ("is not read",)),
    WrongCall("a trainer of code of its own", lambda: _trainer(model="models/own_code"), ("trust_remote_code=True",)),
    WrongCall("a trainer of no data", lambda: _trainer(train_dataset=None), ("train_dataset",)),
    WrongCall("a trainer of no reward", lambda: _trainer(reward_funcs=[]), ("reward_funcs",)),
    WrongCall("a reward that is a number", lambda: _trainer(reward_funcs=[3]), ("reward_funcs",)),
    WrongCall("a reward that raises", lambda: _trained_by("raises"), ("my_rewards.raises", "IndexError")),
    WrongCall("a reward that ends the program", lambda: _trained_by("exits"), ("my_rewards.exits", "SystemExit")),
    WrongCall("a reward that gives too few", lambda: _trained_by("too_few"), ("my_rewards.too_few",)),
    WrongCall("a reward that gives words", lambda: _trained_by("words"), ("my_rewards.words",)),
    WrongCall("no problems", lambda: _analyzed(()), ("no problems",)),
    WrongCall("problems that are numbers", lambda: _analyzed((1, 2)), ("row 0",)),
    WrongCall("no samples", lambda: _analyzed(samples=0), ("samples=0",)),
    WrongCall("samples in words", lambda: _analyzed(samples="two"), ("samples='two'",)),
    WrongCall("a measure that is not known", lambda: _analyzed(measure="jss"), ("jss",)),
    WrongCall("a folder that is not empty", lambda: _analyzed(output_dir="models"), ("models",)),
    WrongCall("a folder that is a file", lambda: _analyzed(output_dir="a_file"), ("a_file",)),
    WrongCall("ks above the samples", lambda: _evaluated(samples=2, ks=[4]), ("ks=[4]",)),
    WrongCall("ks in words", lambda: _evaluated(samples=2, ks=["two"]), ("ks=['two']",)),
    WrongCall("data that is not there", lambda: _problems("nowhere.jsonl"), ("nowhere.jsonl",)),
    WrongCall("data that is a path", lambda: _problems(__import__("pathlib").Path("no.jsonl")), ("no.jsonl",)),
    WrongCall("a split that is not there", lambda: _problems("good.jsonl", split="trian"), ("'trian'",)),
    WrongCall("a negative size", lambda: _problems("good.jsonl", size=-1), ("size=-1",)),
    WrongCall("gold answers that are mappings", lambda: _judged(data="mapping_golds.jsonl"), ("solution_column",)),
    WrongCall("gold answers that are lists", lambda: _judged(data="list_golds.jsonl"), ("solution_column", "list")),
    WrongCall("a judge that is not known", lambda: _judged("acuracy_reward"), ("accuracy_reward",)),
    WrongCall("a judge that needs a column", lambda: _judged("my_rewards.needs_a_column"), ("difficulty",)),
    WrongCall("a judge that raises", lambda: _reward_of("raises"), ("my_rewards.raises", "IndexError")),
    WrongCall("a judge that ends the program", lambda: _reward_of("exits"), ("my_rewards.exits", "SystemExit")),
    WrongCall("a gold answer of 5,001 digits", lambda: _accuracy_of(10**5000), ("1,000 digits", "as text")),
    WrongCall("a folder of no user", lambda: _analyzed(output_dir="~nosuchuser/a"), ("output_dir='~nosuchuser/a'",)),
    WrongCall("a judge that gives too few", lambda: _reward_of("too_few"), ("my_rewards.too_few",)),
    WrongCall("a judge that gives a matrix", lambda: _reward_of("a_matrix"), ("my_rewards.a_matrix",)),
    WrongCall("a judge that gives infinity", lambda: _reward_of("infinite"), ("finite",)),
    WrongCall("a temperature below 0", lambda: _sampling(temperature=-1.0), ("temperature=-1.0",)),
    WrongCall("a temperature in words", lambda: _sampling(temperature="hot"), ("temperature='hot'",)),
    WrongCall("half a token", lambda: _sampling(max_new_tokens=1.5), ("max_new_tokens=1.5",)),
    WrongCall("a seed of NaN", lambda: _sampling(seed=float("nan")), ("seed=nan",)),
    WrongCall("a criterion that is not known", lambda: _intervention("jss", 0.1), ("did you mean js?",)),
    WrongCall("a threshold of NaN", lambda: _intervention("js", float("nan")), ("nan",)),
    WrongCall("logits of two vocabularies", lambda: _divergence((2, 3), (2, 4)), ("(2, 3)", "(2, 4)")),
    WrongCall("more responses than there are", lambda: _pass_at([2], [1], 3), ("k=3", "at most 2")),
    WrongCall("half a response", lambda: _pass_at([2], [1], 0.5), ("k=0.5", "whole number")),
    WrongCall("more right ones than responses", lambda: _pass_at([2], [3], 1), ("More responses are correct",)),
    WrongCall("a p-value of NaN", lambda: _adjusted(0.1, float("nan")), ("nan", "[0, 1]")),
    WrongCall("a p-value above 1", lambda: _adjusted(0.1, 2.0), ("2", "[0, 1]")),
]

RIGHT: list[tuple[str, str, str]] = [
    ("weights in a pickle that holds nothing else", "evaluate", f"{EVALUATE} --model models/good_pickle"),
    ("an adapter", "evaluate", f"{EVALUATE} --model models/adapter"),
    ("rewards that are tensors", "train", f"{TRAIN} --reward_funcs my_rewards.tensors"),
    ("rewards of numpy's numbers", "train", f"{TRAIN} --reward_funcs my_rewards.numpy_numbers"),
    ("rewards of a numpy array", "evaluate", f"{EVALUATE} --reward_func my_rewards.numpy_array"),
    (
        "code that is trusted: training",
        "train",
        f"{TRAIN} --model_name_or_path models/own_code --trust_remote_code true",
    ),
    ("code that is trusted: SFT", "sft", f"{SFT} --base_model models/own_code --trust_remote_code true"),
    (
        "code that is trusted: shift",
        "shift",
        f"{SHIFT} --rl_model models/own_code --base_model models/own_code --trust_remote_code true",
    ),
    ("code that is trusted: evaluation", "evaluate", f"{EVALUATE} --model models/own_code --trust_remote_code true"),
    (
        "code that is trusted: cross",
        "cross",
        f"{SHIFT} --rl_model models/own_code --base_model models/own_code --trust_remote_code true --epsilons 0.1",
    ),
    (
        "code that is trusted: change",
        "change",
        "--model models/own_code --trust_remote_code true --output_dir OUT "
        "--model_config_overrides '{\"max_position_embeddings\": 8}'",
    ),
    (
        "code that is trusted: robustness",
        "robustness",
        f"{SHIFT} --rl_model models/own_code --base_model models/own_code --trust_remote_code true "
        "--kinds rl --temperatures 1 --top_ps 0.7",
    ),
    (
        "code that is trusted: evolution",
        "evolution",
        f"--base_model models/own_code --checkpoints models/own_code {PROBLEMS} --trust_remote_code true",
    ),
]
"""Inputs that look like a mistake and are none: a description, the command, its words."""
