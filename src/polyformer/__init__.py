"""polyformer: the classic transformer zoo on PyTorch, in Hugging Face's checkpoint format.

Importing this package loads neither torch nor tokenizers: a name is imported from its module when it is first asked
for (PEP 562). One line of `_NAMES` below is one module and what it offers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

_NAMES = {
    "core.config": "Config PretrainedConfig",
    "core.outputs": "ModelOutput",
    "core.pretrained": "PreTrainedModel",
    "core.report": "LoadReport",
    "core.quantize": "lay_out_for_one prepack quantize",
    "core.auto": "AutoConfig AutoModel AutoModelForPreTraining AutoModelForCausalLM AutoModelForMaskedLM "
    "AutoModelForNextSentencePrediction AutoModelForSequenceClassification AutoModelForMultipleChoice "
    "AutoModelForTokenClassification AutoModelForQuestionAnswering AutoModelForSeq2SeqLM",
    "core.auto_tokenizer": "AutoTokenizer",
    "core.errors": "CheckpointError ConfigError",
    "models.bert": "BertConfig BertPreTrained BertModel BertForPreTraining BertLMHeadModel BertForMaskedLM "
    "BertForNextSentencePrediction BertForSequenceClassification BertForMultipleChoice BertForTokenClassification "
    "BertForQuestionAnswering",
    "models.roberta": "RobertaConfig RobertaPreTrained RobertaModel RobertaForMaskedLM RobertaForCausalLM "
    "RobertaForSequenceClassification RobertaForMultipleChoice RobertaForTokenClassification "
    "RobertaForQuestionAnswering",
    "models.xlm_roberta": "XLMRobertaConfig XLMRobertaPreTrained XLMRobertaModel XLMRobertaForMaskedLM "
    "XLMRobertaForCausalLM XLMRobertaForSequenceClassification XLMRobertaForMultipleChoice "
    "XLMRobertaForTokenClassification XLMRobertaForQuestionAnswering",
    "models.dpr": "DPRConfig DPRPreTrained DPRContextEncoder DPRQuestionEncoder DPRReader",
    "models.camembert": "CamembertConfig CamembertPreTrained CamembertModel CamembertForMaskedLM "
    "CamembertForCausalLM CamembertForSequenceClassification CamembertForMultipleChoice "
    "CamembertForTokenClassification CamembertForQuestionAnswering",
    "models.distilbert": "DistilBertConfig DistilBertPreTrained DistilBertModel DistilBertForMaskedLM "
    "DistilBertForSequenceClassification DistilBertForMultipleChoice DistilBertForTokenClassification "
    "DistilBertForQuestionAnswering",
    "models.electra": "ElectraConfig ElectraPreTrained ElectraModel ElectraForPreTraining ElectraForMaskedLM "
    "ElectraForSequenceClassification ElectraForMultipleChoice ElectraForTokenClassification "
    "ElectraForQuestionAnswering",
    "models.albert": "AlbertConfig AlbertPreTrained AlbertModel AlbertForPreTraining AlbertForMaskedLM "
    "AlbertForSequenceClassification AlbertForMultipleChoice AlbertForTokenClassification "
    "AlbertForQuestionAnswering",
    "models.convbert": "ConvBertConfig ConvBertPreTrained ConvBertModel ConvBertForMaskedLM "
    "ConvBertForSequenceClassification ConvBertForMultipleChoice ConvBertForTokenClassification "
    "ConvBertForQuestionAnswering",
    "models.longformer": "LongformerConfig LongformerPreTrained LongformerModel LongformerForMaskedLM "
    "LongformerForSequenceClassification LongformerForMultipleChoice LongformerForTokenClassification "
    "LongformerForQuestionAnswering to_longformer",
    "models.xlm": "XLMConfig XLMPreTrained XLMModel XLMWithLMHeadModel XLMForSequenceClassification "
    "XLMForMultipleChoice XLMForTokenClassification XLMForQuestionAnsweringSimple XLMForQuestionAnswering",
    "models.flaubert": "FlaubertConfig FlaubertPreTrained FlaubertModel FlaubertWithLMHeadModel "
    "FlaubertForSequenceClassification FlaubertForMultipleChoice FlaubertForTokenClassification "
    "FlaubertForQuestionAnsweringSimple FlaubertForQuestionAnswering",
    "models.openai_gpt": "OpenAIGPTConfig OpenAIGPTPreTrained OpenAIGPTModel OpenAIGPTLMHeadModel "
    "OpenAIGPTDoubleHeadsModel OpenAIGPTForSequenceClassification",
    "models.gpt2": "GPT2Config GPT2PreTrained GPT2Model GPT2LMHeadModel GPT2DoubleHeadsModel "
    "GPT2ForSequenceClassification GPT2ForTokenClassification",
    "models.transfo_xl": "TransfoXLConfig TransfoXLPreTrained TransfoXLModel TransfoXLLMHeadModel "
    "TransfoXLForSequenceClassification",
    "models.ctrl": "CTRLConfig CTRLPreTrained CTRLModel CTRLLMHeadModel CTRLForSequenceClassification",
    "models.funnel": "FunnelConfig FunnelPreTrained FunnelBaseModel FunnelModel FunnelForPreTraining FunnelForMaskedLM "
    "FunnelForSequenceClassification FunnelForMultipleChoice FunnelForTokenClassification FunnelForQuestionAnswering",
    "models.xlnet": "XLNetConfig XLNetPreTrained XLNetModel XLNetLMHeadModel XLNetForSequenceClassification "
    "XLNetForMultipleChoice XLNetForTokenClassification XLNetForQuestionAnsweringSimple XLNetForQuestionAnswering",
    "models.reformer": "ReformerConfig ReformerPreTrained ReformerModel ReformerModelWithLMHead ReformerForMaskedLM "
    "ReformerForSequenceClassification ReformerForQuestionAnswering",
    "models.mmbt": "MMBTConfig MMBTPreTrained MMBTModel MMBTForClassification",
    "models.encoder_decoder": "EncoderDecoderConfig EncoderDecoderModel",
    "models.rag": "RagConfig RagPreTrained RagModel RagTokenForGeneration RagSequenceForGeneration",
    "models.prophetnet": "ProphetNetConfig ProphetNetPreTrained ProphetNetModel ProphetNetEncoder ProphetNetDecoder "
    "ProphetNetForConditionalGeneration ProphetNetForCausalLM",
    "models.xlm_prophetnet": "XLMProphetNetConfig XLMProphetNetPreTrained XLMProphetNetModel XLMProphetNetEncoder "
    "XLMProphetNetDecoder XLMProphetNetForConditionalGeneration XLMProphetNetForCausalLM",
    "models.t5": "T5Config T5PreTrained T5Model T5EncoderModel T5ForConditionalGeneration",
    "models.mt5": "MT5Config MT5PreTrained MT5Model MT5EncoderModel MT5ForConditionalGeneration",
    "models.bart": "BartConfig BartPreTrained BartModel BartForConditionalGeneration BartForSequenceClassification "
    "BartForQuestionAnswering BartForCausalLM",
    "models.mbart": "MBartConfig MBartPreTrained MBartModel MBartForConditionalGeneration "
    "MBartForSequenceClassification MBartForQuestionAnswering MBartForCausalLM",
    "models.pegasus": "PegasusConfig PegasusPreTrained PegasusModel PegasusForConditionalGeneration PegasusForCausalLM",
    "models.marian": "MarianConfig MarianPreTrained MarianModel MarianMTModel MarianForCausalLM",
    "parts.resnet": "ResNet ImageEncoder",
    "tokenizers.base": "PreTrainedTokenizer BatchEncoding",
    "tokenizers.bert": "BertTokenizer",
    "tokenizers.bert_likes": "DistilBertTokenizer RetriBertTokenizer ElectraTokenizer ConvBertTokenizer "
    "MobileBertTokenizer LxmertTokenizer FunnelTokenizer",
    "tokenizers.prophetnet": "ProphetNetTokenizer",
    "tokenizers.dpr": "DPRContextEncoderTokenizer DPRQuestionEncoderTokenizer DPRReaderTokenizer DPRSpanPrediction",
    "tokenizers.rag": "RagTokenizer",
    "tokenizers.gpt2": "GPT2Tokenizer",
    "tokenizers.roberta": "RobertaTokenizer",
    "tokenizers.longformer": "LongformerTokenizer",
    "tokenizers.bart": "BartTokenizer",
    "tokenizers.openai_gpt": "OpenAIGPTTokenizer",
    "tokenizers.ctrl": "CTRLTokenizer",
    "tokenizers.xlm": "XLMTokenizer",
    "tokenizers.flaubert": "FlaubertTokenizer",
    "tokenizers.transfo_xl": "TransfoXLTokenizer",
    "tokenizers.xlm_roberta": "XLMRobertaTokenizer",
    "tokenizers.mbart": "MBartTokenizer",
    "tokenizers.mbart50": "MBart50Tokenizer",
    "tokenizers.camembert": "CamembertTokenizer",
    "tokenizers.xlm_prophetnet": "XLMProphetNetTokenizer",
    "tokenizers.marian": "MarianTokenizer",
    "tokenizers.albert": "AlbertTokenizer",
    "tokenizers.xlnet": "XLNetTokenizer",
    "tokenizers.t5": "T5Tokenizer MT5Tokenizer",
    "tokenizers.pegasus": "PegasusTokenizer",
    "tokenizers.reformer": "ReformerTokenizer",
    "generation": "GenerationConfig LogitsProcessor StoppingCriteria Constraint PhrasalConstraint "
    "DisjunctiveConstraint TextStreamer TextIteratorStreamer TrieGuide RegexGuide GrammarGuide",
    "parts.pooling": "AveragePooler",
    "retrieval": "RagRetriever",
    "pipelines": "pipeline Pipeline SentenceEncoder Conversation",
}
_ALIASES = {  # another name for the same class
    "PreTrainedTokenizerFast": "PreTrainedTokenizer",
    "PreTrainedTokenizerBase": "PreTrainedTokenizer",
    "BertTokenizerFast": "BertTokenizer",
    "DistilBertTokenizerFast": "DistilBertTokenizer",
    "RetriBertTokenizerFast": "RetriBertTokenizer",
    "ElectraTokenizerFast": "ElectraTokenizer",
    "ConvBertTokenizerFast": "ConvBertTokenizer",
    "MobileBertTokenizerFast": "MobileBertTokenizer",
    "LxmertTokenizerFast": "LxmertTokenizer",
    "FunnelTokenizerFast": "FunnelTokenizer",
    "ProphetNetTokenizerFast": "ProphetNetTokenizer",
    "DPRContextEncoderTokenizerFast": "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizerFast": "DPRQuestionEncoderTokenizer",
    "DPRReaderTokenizerFast": "DPRReaderTokenizer",
    "GPT2TokenizerFast": "GPT2Tokenizer",
    "RobertaTokenizerFast": "RobertaTokenizer",
    "LongformerTokenizerFast": "LongformerTokenizer",
    "BartTokenizerFast": "BartTokenizer",
    "OpenAIGPTTokenizerFast": "OpenAIGPTTokenizer",
    "CTRLTokenizerFast": "CTRLTokenizer",
    "XLMRobertaTokenizerFast": "XLMRobertaTokenizer",
    "MBartTokenizerFast": "MBartTokenizer",
    "MBart50TokenizerFast": "MBart50Tokenizer",
    "CamembertTokenizerFast": "CamembertTokenizer",
    "XLMProphetNetTokenizerFast": "XLMProphetNetTokenizer",
    "MarianTokenizerFast": "MarianTokenizer",
    "AlbertTokenizerFast": "AlbertTokenizer",
    "XLNetTokenizerFast": "XLNetTokenizer",
    "T5TokenizerFast": "T5Tokenizer",
    "MT5TokenizerFast": "MT5Tokenizer",
    "PegasusTokenizerFast": "PegasusTokenizer",
    "ReformerTokenizerFast": "ReformerTokenizer",
    "BertPreTrainedModel": "BertPreTrained",
    "BartPretrainedModel": "BartPreTrained",
    "BartPreTrainedModel": "BartPreTrained",
    "MBartPreTrainedModel": "MBartPreTrained",
    "PegasusPreTrainedModel": "PegasusPreTrained",
    "MarianPreTrainedModel": "MarianPreTrained",
    "FunnelPreTrainedModel": "FunnelPreTrained",
    "RobertaPreTrainedModel": "RobertaPreTrained",
    "LongformerPreTrainedModel": "LongformerPreTrained",
    "XLMRobertaPreTrainedModel": "XLMRobertaPreTrained",
    "CamembertPreTrainedModel": "CamembertPreTrained",
    "DistilBertPreTrainedModel": "DistilBertPreTrained",
    "ElectraPreTrainedModel": "ElectraPreTrained",
    "AlbertPreTrainedModel": "AlbertPreTrained",
    "OpenAIGPTPreTrainedModel": "OpenAIGPTPreTrained",
    "GPT2PreTrainedModel": "GPT2PreTrained",
    "T5PreTrainedModel": "T5PreTrained",
    "TransfoXLPreTrainedModel": "TransfoXLPreTrained",
    "CTRLPreTrainedModel": "CTRLPreTrained",
    "ReformerPreTrainedModel": "ReformerPreTrained",
    "ConvBertPreTrainedModel": "ConvBertPreTrained",
    "XLMPreTrainedModel": "XLMPreTrained",
    "XLNetPreTrainedModel": "XLNetPreTrained",
    "FlaubertPreTrainedModel": "FlaubertPreTrained",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOME, *_ALIASES])


def __getattr__(name: str) -> Any:
    original = _ALIASES.get(name, name)
    if original not in _HOME:
        raise AttributeError(f"module 'polyformer' has no attribute {name!r}")
    value = getattr(import_module(f"polyformer.{_HOME[original]}"), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
