"""Bad inputs: the right exit code, two lines that name the place and the mend, nothing lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.cli import run
from tests.cli import (
    bad,
    bad_bench,
    bad_compare,
    bad_distill,
    bad_export,
    bad_lint,
    bad_made,
    bad_remote,
    bad_transfer,
)
from tests.cli.bad import Place

#: What is spoilt, the exit code, and words that the two lines must hold.
CASES: list[tuple[Callable[[Place], list[str]], int, tuple[str, ...]]] = [
    (bad.data_missing, 2, ("nowhere",)),
    (bad.data_empty, 2, ("pictures", "class")),
    (bad.data_one_class, 2, ("cats",)),
    (bad.data_empty_class, 2, ("emus",)),
    (bad.data_one_image, 2, ("emus",)),
    (bad.data_case_only, 2, ("Cats", "cats")),
    (bad.data_class_only_in_val, 2, ("mauve", "val")),
    (bad.data_corrupt_val, 2, ("val/red/00.png",)),
    (bad.data_bomb, 2, ("red/00.png",)),
    (bad.data_text_as_image, 2, ("red",)),
    (bad.data_truncated_tar, 2, ("cut.tar.gz",)),
    (bad.data_tar_climbs, 2, ("climbs.tar", "../red")),
    (bad.data_torchvision_unknown, 2, ("CIFAR11", "CIFAR10")),
    (bad.data_is_a_file, 2, ("photos.zip",)),
    (bad.model_unknown, 2, ("resnt20", "resnet20")),
    (bad.model_pretrained_offline, 3, ("resnet18", "--weights")),
    (bad.weights_missing, 2, ("no.safetensors",)),
    (bad.weights_empty, 2, ("empty.safetensors",)),
    (bad.weights_text, 2, ("text.safetensors",)),
    (bad.weights_truncated, 2, ("cut.safetensors",)),
    (bad.weights_pickle, 2, ("evil.pth",)),
    (bad.weights_of_another_model, 2, ("weights.safetensors",)),
    (bad.strategy_unknown, 2, ("'ful'", "full")),
    (bad.strategy_without_weights, 2, ("probe", "--weights")),
    (bad.strategy_scratch_with_weights, 2, ("scratch",)),
    (bad.layer_unknown, 2, ("layer9", "layer3")),
    (bad.option_unknown, 2, ("--epoch", "edgexfer finetune --help")),
    (bad.option_out_of_range, 2, ("lr is -1",)),
    (bad.temperature_zero, 2, ("temperature is 0",)),
    (bad.weight_negative, 2, ("w_soft is -0.5",)),
    (bad.weights_both_zero, 2, ("all its weights and w_hard",)),
    (bad.loss_unknown, 2, ("'kl'", "kd")),
    (bad.recipe_missing, 2, ("no.yaml",)),
    (bad.recipe_wrong_key, 2, ("data.limt", "line 2", "'limit'")),
    (bad.recipe_wrong_type, 2, ("student.train.epochs", "line 5", "integer")),
    (bad.recipe_duplicate_key, 2, ("recipe.yaml:5", "duplicate key")),
    (bad.recipe_not_yaml, 2, ("recipe.yaml:2",)),
    (bad.recipe_alias_bomb, 2, ("recipe.yaml:1", "anchors")),
    (bad.recipe_tag, 2, ("recipe.yaml:1", "tags")),
    (bad.recipe_sexagesimal, 2, ("student.temperature", "22:22", "number")),
    (bad.recipe_bad_override, 2, ("student.train.epochs", "key=value")),
    (bad.recipe_unknown_target, 2, ("jetsn", "jetson")),
    (bad_made.out_below_a_file, 3, ("out", "--out")),
    (bad_made.out_holds_something_else, 2, ("out", "--out")),
    (bad_made.run_with_other_settings, 2, ("train.lr", "0.5")),
    (bad_made.run_locked, 2, ("run", "wait")),
    (bad_made.teacher_unfinished, 2, ("interrupted", "finetune")),
    (bad_made.teacher_is_no_run, 2, ("pictures", "is not a run")),
    (bad_made.teacher_lacks_a_class, 2, ("mauve",)),
    (bad_made.run_weights_flipped, 2, ("weights.safetensors",)),
    (bad_made.export_unknown_target, 2, ("x86-onnxrt", "x86-onnxruntime")),
    (bad_made.export_over_something, 2, ("bundle", "--out")),
    (bad_made.profile_unknown, 2, ("jetzon", "jetson")),
    (bad_made.profile_many_faults, 2, ("precisons", "title", "device")),
    (bad_made.bundle_is_none, 2, ("pictures", "edgexfer export")),
    (bad_made.bundle_flipped_bit, 2, (".onnx", "sha256")),
    (bad_made.bundle_file_missing, 2, (".onnx", "missing")),
    (bad_made.bundle_foreign_file, 2, ("extra.so",)),
    (bad_made.bundle_climbs, 2, ("../evil.onnx", "unsafe")),
    (bad_made.bundle_of_the_future, 2, ("edgexfer.bundle/9",)),
    (bad_made.bundle_manifest_cut, 2, ("manifest.json",)),
    (bad_made.artefact_unknown, 2, ("x86-onnxruntime-fp31", "x86-onnxruntime-fp32")),
    (bad_made.predict_no_image, 2, ("words.png",)),
    (bad_made.bench_target_not_in_bundle, 2, ("jetson",)),
    (bad_made.bench_runtime_missing, 3, ("tensorrt",)),
    (bad_made.eval_bundle_without_data, 2, ("--data",)),
    (bad_made.report_of_nothing, 2, ("pictures",)),
    (bad_made.report_of_a_damaged_record, 2, ("record.json",)),
    (bad_made.report_of_a_record_of_another_schema, 2, ("edgexfer.bench/1", "bench it again")),
    (bad_made.report_below_a_file, 3, ("taken", "--out")),
    (bad_made.report_over_another_s_notes, 2, ("notes.md", "-o")),
    (bad_made.report_as_markdown, 2, ("report.md", ".html")),
    (bad_made.init_over_a_file, 2, ("recipe.yaml", "--force")),
    (bad_made.verb_unknown, 2, ("finetun", "'finetune'")),
    (bad_bench.model_missing, 2, ("no.onnx", "no such file")),
    (bad_bench.model_empty, 2, ("empty.onnx", "is empty")),
    (bad_bench.model_text, 3, ("text.onnx", "ONNX Runtime cannot load it")),
    (bad_bench.model_of_an_unknown_kind, 2, ("net.tflite", "bundle")),
    (bad_bench.ir_without_weights, 2, ("net.bin", "copy both")),
    (bad_bench.runtime_unknown, 2, ("'onnxrt'", "onnxruntime")),
    (bad_bench.runtime_that_loads_no_such_file, 2, (".xml", "openvino")),
    (bad_bench.precision_unknown, 2, ("'fp23'", "fp32")),
    (bad_bench.precision_that_the_runtime_lacks, 3, ("'bf16'", "fp32")),
    (bad_bench.precision_of_no_artefact, 2, ("--precision", "x86-onnxruntime-fp32")),
    (bad_bench.engine_without_precision, 2, ("net.engine", "--precision fp16")),
    (bad_bench.target_of_a_bare_model, 2, ("net.onnx", "--runtime")),
    (bad_bench.shape_without_sizes, 2, ("images:1x3xW", "INPUT:")),
    (bad_bench.shape_of_an_unknown_input, 3, ("'image'", "'images'")),
    (bad_bench.shape_that_does_not_fit, 3, ("images", "--shape")),
    (bad_bench.server_without_a_bound, 2, ("server", "--latency-bound-ms")),
    (bad_bench.bound_without_a_server, 2, ("single_stream", "--scenario server")),
    (bad_bench.several_streams_of_one, 2, ("one stream", "multi_stream")),
    (bad_bench.one_stream_of_several, 2, ("multi_stream", "--streams 2")),
    (bad_bench.batch_of_a_query, 2, ("server", "offline")),
    (bad_bench.scenario_unknown, 2, ("singlestream", "single_stream")),
    (bad_bench.seconds_below_zero, 2, ("seconds is -1",)),
    (bad_bench.records_into_the_bundle, 2, ("seal", "--out")),
    (bad_compare.compare_missing, 2, ("no.json", "no such file")),
    (bad_compare.compare_damaged, 2, ("cut.json", "JSON")),
    (bad_compare.compare_older_schema, 2, ("edgexfer.bench/1", "bench it again")),
    (bad_compare.compare_a_folder, 2, ("pictures", "is a folder")),
    (bad_compare.compare_other_threads, 2, ("threads is 1", "4", "--across threads")),
    (bad_compare.compare_other_precision, 2, ("'fp32'", "'int8'", "--across precision")),
    (bad_compare.compare_other_images, 2, ("'aa'", "'cc'", "--across data")),
    (bad_compare.compare_other_scenario, 2, ("'single_stream'", "'sustained'", "alike")),
    (bad_compare.compare_other_power_mode, 2, ("power_mode is None", "'15W'")),
    (bad_compare.compare_across_definitions, 2, ("'definitions'", "on purpose")),
    (bad_compare.compare_across_a_typing_error, 2, ("'precison'", "'precision'")),
    (bad_compare.compare_with_delta_zero, 2, ("--delta", "edgexfer compare --help")),
    (bad_compare.gate_without_a_limit, 2, ("'latency_p90_ms'", "latency_p90_ms<8")),
    (bad_compare.gate_of_an_unknown_figure, 2, ("latency_p09_ms", "latency_p90_ms")),
    (bad_compare.junit_without_a_gate, 2, ("gates.xml", "--gate")),
    (bad_compare.bench_with_a_bad_gate, 2, ("'latency'", "latency_")),
    (bad_compare.junit_over_something_else, 2, ("notes.txt", "would be lost")),
    (bad_compare.bench_over_something_else, 2, ("mine.json", "would be lost")),
    (bad_compare.reanalyse_missing, 2, ("no.json",)),
    (bad_compare.reanalyse_a_folder, 2, ("pictures", "is a folder")),
    (bad_compare.reanalyse_over_something_else, 2, ("mine.json", "would be lost")),
    (bad_compare.reanalyse_an_unknown_key, 2, ("a.json", "latncy")),
    (bad_compare.reanalyse_samples_that_are_none, 2, ("infer_ns[3]", "'fast'")),
    (bad_compare.reanalyse_an_edited_figure, 1, ("latency.p90", "--out FILE")),
    (bad_distill.loss_empty_term, 2, ("'kd+'", "empty")),
    (bad_distill.loss_negative_weight, 2, ("'-1'", "0 or more")),
    (bad_distill.loss_named_twice, 2, ("kd", "--seeds")),
    (bad_distill.loss_layer_of_logits, 2, ("kd@layer2", "hint")),
    (bad_distill.layer_that_does_not_exist, 2, ("layr2", "layer2")),
    (bad_distill.stage_that_does_not_exist, 2, ("9", "layer3")),
    (bad_distill.mixup_with_one_true_class, 2, ("dkd", "mixup", "kd or dist")),
    (bad_distill.teacher_weights_too_many, 2, ("2 teacher weights", "1 teacher")),
    (bad_distill.teacher_weight_zero, 2, ("teacher_weights",)),
    (bad_distill.class_map_missing, 2, ("names.yaml",)),
    (bad_distill.class_map_of_unknown_classes, 2, ("names.yaml", "'read'", "red")),
    (bad_distill.teacher_onnx_without_a_card, 2, ("bare.onnx", "--teacher-card")),
    (bad_distill.teacher_onnx_cut_short, 2, ("cut.onnx",)),
    (bad_distill.teacher_onnx_has_no_layers, 2, ("teacher.onnx", "hint")),
    (bad_distill.teacher_bundle_with_a_flipped_bit, 2, ("fp32.onnx", "sha256")),
    (bad_distill.cache_without_room, 2, ("teacher_cache", "cache_gb")),
    (bad_distill.cache_beside_a_feature_loss, 2, ("teacher_cache", "layers")),
    (bad_distill.quantized_before_it_is_trained, 2, ("qat_for", "--weights")),
    (bad_distill.quantized_for_nncf, 2, ("x86-openvino", "x86-onnxruntime")),
    (bad_distill.quantized_for_nobody, 2, ("x86-onnxruntim", "x86-onnxruntime")),
    (bad_distill.quantized_with_a_feature_loss, 2, ("hint", "qat_for")),
    (bad_distill.unlabelled_missing, 2, ("camera",)),
    (bad_distill.unlabelled_is_the_data, 2, ("pictures",)),
    (bad_distill.unlabelled_without_images, 2, ("camera",)),
    (bad_distill.milestones_of_no_steps, 2, ("milestones", "schedule")),
    (bad_distill.seeds_zero, 2, ("seeds is 0",)),
    (bad_distill.assistant_unknown, 2, ("resnt14", "resnet14")),
    (bad_distill.engine_that_cannot, 2, ("openvino", "auto")),
    (bad_lint.lint_missing, 2, ("no.onnx",)),
    (bad_lint.lint_empty, 2, ("empty.onnx",)),
    (bad_lint.lint_text, 2, ("text.onnx",)),
    (bad_lint.lint_cut_short, 2, ("cut.onnx", "cut short")),
    (bad_lint.lint_weights_climb, 2, ("net.onnx", "'../weights.bin'", "unsafe")),
    (bad_lint.lint_weights_absolute, 2, ("net.onnx", "weights.bin'", "unsafe")),
    (bad_lint.lint_weights_by_symlink, 2, ("net.onnx", "'w.bin'", "unsafe")),
    (bad_lint.lint_weights_by_hard_link, 2, ("net.onnx", "'w.bin'", "hard link")),
    (bad_lint.lint_weights_missing, 2, ("w.bin", "missing")),
    (bad_lint.lint_weights_too_short, 2, ("w.bin", "'w'")),
    (bad_lint.lint_unknown_release, 2, ("'JetPack 5'", "JetPack 5.1")),
    (bad_lint.lint_unknown_target, 2, ("jetzon", "jetson")),
    (bad_lint.lint_weights_by_a_linked_folder, 2, ("net.onnx", "'sub/weights.bin'", "unsafe")),
    (bad_lint.lint_weights_climb_behind_a_folder, 2, ("net.onnx", "unsafe")),
    (bad_lint.lint_weights_in_memory, 2, ("net.onnx", "_ORT_MEM_ADDR_", "unsafe")),
    (bad_lint.lint_weights_are_a_pipe, 2, ("w.bin", "missing")),
    (bad_lint.lint_pipe, 2, ("net.onnx", "no such file")),
    (bad_lint.lint_claims_more_than_it_holds, 2, ("net.onnx", "damaged")),
    (bad_lint.lint_nested_without_end, 2, ("deep.onnx", "MaxDepth")),
    (bad_lint.teacher_of_an_unknown_operator, 2, ("net.onnx", "Frobnicate")),
    (bad_lint.teacher_of_a_custom_domain, 3, ("net.onnx", "com.acme")),
    (bad_lint.teacher_of_a_dynamic_rank, 2, ("net.onnx", "shape")),
    (bad_lint.teacher_of_a_circle, 2, ("net.onnx", "sorted", "'b'")),
    (bad_export.profile_of_an_unknown_backend, 2, ("mine.yaml", "line 3", "onnxruntime")),
    (bad_export.profile_of_a_precision_that_the_chip_lacks, 2, ("int8", "chip lacks", "fp32")),
    (bad_export.profile_of_a_precision_that_the_backend_lacks, 2, ("bf16", "onnxruntime")),
    (bad_export.profile_of_an_unknown_device, 2, ("device is 'NPU'", "CPU or CUDA")),
    (bad_export.profile_of_an_impossible_quantization, 2, ("scheme is 'nncf'", "qdq")),
    (bad_export.profile_of_a_future_opset, 2, ("onnx_opset_max is 99", "7 to 40")),
    (bad_export.profile_of_a_fact_without_a_unit, 2, ("facts.memory", "_gb")),
    (bad_export.profile_is_missing, 2, ("no.yaml",)),
    (bad_export.export_target_twice, 2, ("x86-onnxruntime", "twice")),
    (bad_export.export_no_target, 2, ("target",)),
    (bad_export.export_precision_that_the_target_lacks, 2, ("bf16", "int8, fp32")),
    (bad_export.export_precision_unknown, 2, ("int4", "int8")),
    (bad_export.export_of_no_run, 2, ("pictures", "no trained model")),
    (bad_export.export_of_a_bundle, 2, ("bundle", "no trained model")),
    (bad_export.export_onto_a_file, 2, ("out", "--out")),
    (bad_export.export_calibration_of_nothing, 2, ("calibration_images is 0",)),
    (bad_export.export_calibration_folder_empty, 2, ("data", "class")),
    (bad_export.export_data_has_changed, 2, ("has changed since the training",)),
    (bad_export.export_drop_negative, 2, ("max_drop is -1",)),
    (bad_export.show_model_cut_short, 2, ("cut.onnx", "cut short")),
    (bad_export.show_model_is_missing, 2, ("no.onnx", "no such file")),
    (bad_export.probe_unknown_backend, 2, ("onnxrt", "onnxruntime")),
    (bad_export.probe_bad_name, 2, ("../mine", "a-z")),
    (bad_export.verify_weights_swapped_for_a_link, 2, (".onnx",)),
    (bad_remote.on_nothing, 2, ("--on", "ssh:HOST")),
    (bad_remote.on_a_bare_name, 2, ("'pi5'", "ssh:HOST")),
    (bad_remote.on_an_unknown_scheme, 2, ("'telnet:pi5'", "ssh:HOST")),
    (bad_remote.on_no_host, 2, ("'ssh:'", "host name")),
    (bad_remote.on_a_host_that_is_an_option, 2, ("-oProxyCommand", "host name")),
    (bad_remote.on_a_host_with_a_command, 2, ("pi5;$(touch", "host name")),
    (bad_remote.on_a_host_with_a_line_end, 2, ("ProxyCommand", "host name")),
    (bad_remote.on_a_user_with_a_line_end, 2, ("root", "user name")),
    (bad_remote.on_a_user_that_is_an_option, 2, ("'-Fevil'", "user name")),
    (bad_remote.on_a_port_too_large, 2, ("'70000'", "65535")),
    (bad_remote.on_a_port_in_words, 2, ("'ssh'", "65535")),
    (bad_remote.on_a_board_twice, 2, ("pi5", "twice")),
    (bad_remote.on_a_python_with_a_command, 2, ("--remote-python", "plain path")),
    (bad_remote.on_a_python_that_is_an_option, 2, ("'-c'", "plain path")),
    (bad_remote.verify_on_a_host_with_a_quote, 2, ("pi5'", "host name")),
    (bad_remote.doctor_on_an_unknown_scheme, 2, ("http://pi5", "ssh:HOST")),
    (bad_remote.export_on_two_boards, 2, ("several machines", "one")),
    (bad_remote.export_on_a_board_that_has_nothing_to_do, 2, ("ssh:pi5", "leave --on out")),
    (bad_transfer.adapt_without_a_target, 2, ("dann", "--unlabelled FOLDER")),
    (bad_transfer.adapt_target_missing, 2, ("camera", "no such folder")),
    (bad_transfer.adapt_target_without_images, 2, ("camera", "no images")),
    (bad_transfer.adapt_target_within_the_source, 2, ("red", "shares images", "beside it")),
    (bad_transfer.adapt_target_of_test_images, 2, ("camera", "copy of a val or test image")),
    (bad_transfer.adapt_mixed_images, 2, ("mmd", "mixup", "train.mixup")),
    (bad_transfer.adapt_odd_batch, 2, ("batch_size is 7", "half of it", "multiple of 2")),
    (bad_transfer.adapt_threshold_above_one, 2, ("threshold", "95")),
    (bad_transfer.adapt_option_of_another_strategy, 2, ("kernel", "kernels")),
    (bad_transfer.pretrain_on_nothing, 2, ("camera", "no such folder")),
    (bad_transfer.pretrain_on_no_images, 2, ("camera", "no images")),
    (bad_transfer.pretrain_on_one_image, 2, ("1 usable images", "batch_size")),
    (bad_transfer.pretrain_by_an_unknown_method, 2, ("'moco'", "simclr")),
    (bad_transfer.pretrain_at_no_temperature, 2, ("temperature is 0",)),
    (bad_transfer.cluster_by_random_features, 2, ("resnet8", "random", "--weights FILE")),
    (bad_transfer.cluster_by_a_run_at_another_size, 2, ("run", "leave out", "--size")),
    (bad_transfer.cluster_into_more_than_there_are, 2, ("--clusters 999", "give 2 to")),
    (bad_transfer.fewshot_with_more_than_there_are, 2, ("500 are drawn", "--shots")),
    (bad_transfer.fewshot_in_words, 2, ("one,five", "1,5,10")),
    (bad_transfer.fewshot_of_one_class, 2, ("--ways 1", "2 to 3")),
    (bad_transfer.prototype_of_random_features, 2, ("prototype", "--weights")),
    (bad_transfer.advise_source_missing, 2, ("nowhere", "MODEL=FILE")),
    (bad_transfer.advise_source_is_no_run, 2, ("pictures", "no trained model")),
    (bad_transfer.advise_source_without_an_architecture, 2, ("w.safetensors", "MODEL=")),
    (bad_transfer.advise_source_of_another_architecture, 2, ("weights.safetensors",)),
    (bad_transfer.advise_source_twice, 2, ("run", "twice")),
    (bad_transfer.advise_model_without_weights, 2, ("resnet8", "--weights")),
    (bad_transfer.advise_source_data_without_a_source, 2, ("--source-data", "--models")),
    (bad_transfer.advise_source_data_without_images, 2, ("old", "no images")),
    (bad_transfer.advise_target_unknown, 2, ("jetzon", "jetson")),
    (bad_transfer.advise_students_without_a_target, 2, ("--students", "--target")),
    (bad_transfer.advise_measured_on_an_engine, 2, ("jetson", "--on")),
    (bad_transfer.advise_recipe_into_a_folder, 2, (".yaml",)),
    (bad_transfer.advise_recipe_over_another, 2, ("recipe.yaml", "--force")),
    (bad_transfer.advise_a_run_at_another_size, 2, ("run", "leave out --size")),
    (bad_transfer.cluster_over_something_else, 2, ("clusters.csv", "would be lost")),
    (bad_transfer.curve_into_a_run, 2, ("is a run", "--out")),
    (bad_transfer.advise_few_images, 2, ("--images", "edgexfer advise --help")),
    (bad_transfer.gradual_that_never_thaws, 2, ("never all thaw within 1", "5 epochs")),
    (bad_transfer.lora_on_an_unknown_layer, 2, ("layr2", "layer2", "attention, linear")),
    (bad_transfer.lora_on_a_norm, 2, ("BatchNorm2d", "a convolution or a linear layer")),
    (bad_transfer.lora_of_no_rank, 2, ("rank is 0",)),
    (bad_transfer.adapter_on_attention_that_is_not_there, 2, ("'attention'", "pointwise")),
    (bad_transfer.adapter_on_the_head, 2, ("'fc' is a Linear", "below the head")),
    (bad_transfer.bitfit_with_an_option, 2, ("bitfit has no options", "rank")),
    (bad_transfer.probe_on_an_empty_split, 2, ("no val images", "--option c=1")),
    (bad_transfer.probe_by_an_unknown_head, 2, ("'forest'", "'mlp'")),
    (bad_transfer.probe_by_steps_with_c, 2, ("c is set", "head=logistic")),
    (bad_transfer.l2sp_that_pushes_away, 2, ("weight is -1",)),
    (bad_transfer.delta_of_a_stage_that_is_not_there, 2, ("none is 9", "3 layer3")),
    (bad_transfer.bss_of_no_values, 2, ("values is 0",)),
    (bad_transfer.labels_missing, 2, ("labels.csv", "data.labels")),
    (bad_transfer.labels_without_the_image_column, 2, ("'file'", "image,TASK")),
    (bad_transfer.labels_with_a_column_that_names_nothing, 2, ("'a b'", "underscores")),
    (bad_transfer.labels_with_an_image_twice, 2, ("row 3", "red/00.png", "twice")),
    (bad_transfer.labels_with_a_short_row, 2, ("row 2", "2 cells", "no label")),
    (bad_transfer.labels_of_an_unknown_image, 2, ("red/99.png", "not there")),
    (bad_transfer.labels_of_one_class, 2, ("task b", "only the class 'u'")),
    (bad_transfer.labels_without_a_label, 2, ("task b", "no label")),
    (bad_transfer.labels_with_too_many_weights, 2, ("3 weights for 2 tasks", "a, b")),
    (
        bad_transfer.labels_that_training_images_lack_for_a_probe,
        2,
        ("the label b=v", "head=trained"),
    ),
    (bad_transfer.labels_for_advice_without_a_task, 2, ("2 tasks", "--task, one of a, b")),
    (bad_transfer.labels_for_a_curve_of_a_task_that_is_not_there, 2, ("--task c", "known: a, b")),
]


@pytest.mark.parametrize(
    ("spoil", "code", "words"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_bad_input(
    spoil: Callable[[Place], list[str]],
    code: int,
    words: tuple[str, ...],
    place: Place,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = spoil(place)
    before = _contents(place)

    found = run(argv)

    out, err = capsys.readouterr()
    assert (found, out) == (code, ""), err
    *progress, what, fix = err.strip().splitlines()
    assert all("% " in line and "/s " in line for line in progress), err
    lines = (what, fix)
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("  fix: ")
    assert all(len(line) <= 320 for line in lines), err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    after = _contents(place)
    assert {name: after.get(name) for name in before} == before, "something was lost or changed"
    assert not (place.here / "executed").exists(), "a pickle was executed"
    if spoil.__module__ in (bad_export.__name__, bad_lint.__name__):
        assert after.keys() == before.keys(), "something was written before it was refused"
    if spoil.__module__ in (bad_distill.__name__, bad_transfer.__name__):
        # A run that says only that it failed is begun anew by the next command.
        made = {Path(name).name for name in after.keys() - before.keys()}
        assert made <= {"run.json", "metrics.jsonl"}, "a training was begun before it was refused"


def test_the_table_is_whole() -> None:
    modules = (
        bad,
        bad_bench,
        bad_compare,
        bad_distill,
        bad_export,
        bad_lint,
        bad_made,
        bad_remote,
        bad_transfer,
    )
    functions = {v for m in modules for v in vars(m).values() if _is_of(v, m.__name__)}
    spoilers = {f for f in functions if _takes_a_place(f)}
    assert {case[0] for case in CASES} == spoilers
    assert len(CASES) >= 140


def _is_of(value: object, module: str) -> bool:
    return getattr(value, "__module__", "") == module and callable(value)


def _takes_a_place(function: object) -> bool:
    names = getattr(function, "__annotations__", {})
    return list(names) == ["p", "return"] and getattr(function, "__name__", "_")[0] != "_"


def _contents(place: Place) -> dict[str, str]:
    """Hash every file of the case's folder and of the good things; a lock's note may change."""
    roots = (place.here, place.pictures, place.run, place.bundle)
    files = [f for root in roots for f in Path(root).rglob("*") if f.is_file()]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.name != ".lock"}
